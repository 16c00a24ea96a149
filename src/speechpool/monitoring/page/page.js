// Shows what the server sends once a second. It keeps the history itself, and draws the charts from that.
"use strict";
(() => {
  const KEEP = 900; // points: a quarter of an hour
  const SIGNALS = ["first_packet_delay", "end_to_end_latency", "error_rate", "pool_utilisation", "connection_reuse"];
  const VERDICTS = { ok: "✓ within the target", missed: "✕ target missed", "no data": "– no data", "too few tasks": "… too few tasks", shown: "shown" };
  const NUMBERS = [["max_size", "at most"], ["idle", "idle"], ["borrowed", "borrowed"], ["opening", "opening"], ["closing", "closing"],
    ["waiting", "waiting"], ["oldest_wait", "oldest wait"], ["predicted_wait", "predicted wait"], ["opened", "opened"],
    ["open_failed", "dials failed"], ["borrows", "borrows"], ["reused", "reused"], ["timeouts", "timeouts"], ["shed", "shed"], ["down", "turned away (down)"]];
  const SECONDS = new Set(["oldest_wait", "predicted_wait"]);
  const PHASES = ["text_wait", "queue", "connect", "start", "synthesis", "rest"];
  const OUTCOMES = ["completed", "failed", "cancelled", "shed"];
  const seconds = (value) => value === null || value === undefined ? "–" : value < 0.9995 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(2)} s`;
  const whole = (value) => value === null || value === undefined ? "–" : value.toLocaleString("en");
  const percent = (value) => value === null || value === undefined ? "–" : `${(100 * value).toFixed(1)} %`;
  const rate = (value) => value === null || value === undefined ? "–" : `${value.toFixed(1)}/s`;
  const $ = (id) => document.getElementById(id);
  const make = (tag, text, kind) => { const one = document.createElement(tag); if (text !== undefined) one.textContent = text; if (kind) one.className = kind; return one; };

  // Each chart: title, unit, names of its lines, and what one point of it is.
  const CHARTS = [
    ["First packet delay", seconds, ["p50", "p95", "p99"], (now) => { const d = now.report.window.first_packet_delay; return [d.p50, d.p95, d.p99]; }],
    ["Pool utilisation", percent, ["borrowed / max_size", "mean of the window"], (now) => [now.stats.borrowed / now.stats.max_size, now.report.window.pool_utilisation.mean]],
    ["Tasks a second", rate, OUTCOMES, (now, before) => OUTCOMES.map((name) => before && (now.report.lifetime.error_rate[name] - before.report.lifetime.error_rate[name]) / Math.max(0.001, now.time - before.time))],
    ["Waiting borrowers", whole, ["waiting"], (now) => [now.stats.waiting]],
    ["Oldest wait", seconds, ["oldest wait"], (now) => [now.stats.oldest_wait]],
    ["Connections", whole, ["idle", "borrowed", "opening", "closing"], (now) => [now.stats.idle, now.stats.borrowed, now.stats.opening, now.stats.closing]],
    ["Connections closed a second", rate, ["closed"], (now, before) => [before && (closed(now) - closed(before)) / Math.max(0.001, now.time - before.time)]],
  ];
  const closed = (pool) => Object.values(pool.stats.discarded).reduce((sum, count) => sum + count, 0);

  const histories = new Map(); // pool: its points, a column a line
  let chosen = null, pools = [], plots = [];
  const last = new Map(); // pool: its last snapshot

  function remember(pool) {
    let history = histories.get(pool.pool);
    if (!history) histories.set(pool.pool, history = { time: [], lines: CHARTS.map((chart) => chart[2].map(() => [])) });
    const before = last.get(pool.pool);
    if (before && before.seq === pool.seq) return;
    history.time.push(pool.time);
    CHARTS.forEach((chart, at) => chart[3](pool, before).forEach((value, line) => history.lines[at][line].push(value ?? null)));
    if (history.time.length > KEEP) [history.time, ...history.lines.flat()].forEach((column) => column.shift());
    last.set(pool.pool, pool);
  }

  // ---------------------------------------------------------------- charts
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  function build() {
    plots.forEach((plot) => plot.chart.destroy());
    $("charts").replaceChildren();
    // All figures first: the width of one depends on how many there are.
    const figures = CHARTS.map(() => make("figure"));
    $("charts").append(...figures);
    plots = CHARTS.map(([title, unit, lines], number) => {
      const figure = figures[number], caption = make("figcaption"), place = make("div");
      place.setAttribute("role", "img");
      figure.append(caption, place);
      const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
      const chart = new uPlot({
        width: Math.max(200, figure.clientWidth - 26), height: 170, cursor: { show: false }, legend: { show: false },
        scales: { y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
        axes: [{ ...axis }, { ...axis, size: 64, values: (_, marks) => marks.map(unit) }],
        series: [{}, ...lines.map((label, at) => ({ label, stroke: colour(`--c${at}`), width: 1.5, dash: [[], [6, 3], [2, 2], [8, 3, 2, 3]][at], points: { show: false } }))],
      }, [[], ...lines.map(() => [])], place);
      return { chart, caption, place, title, unit, lines };
    });
  }
  function draw(history) {
    plots.forEach(({ chart, caption, place, title, unit, lines }, at) => {
      const columns = history.lines[at];
      chart.setData([history.time, ...columns]);
      const values = lines.map((name, line) => `${name} ${unit(columns[line].at(-1))}`).join(", ");
      caption.replaceChildren(make("b", title), ` ${values}`);
      place.setAttribute("aria-label", `${title}, last: ${values}`);
    });
  }

  // ---------------------------------------------------------------- everything else
  function fill(list, rows) {
    list.replaceChildren(...rows.map(([name, text, id]) => {
      const box = make("div"), value = make("dd", text);
      if (id) value.id = id;
      box.append(make("dt", name), value);
      return box;
    }));
  }
  function showSignals(pool) {
    $("span").textContent = `last ${Math.round(pool.report.window_seconds)} s, ${whole(pool.report.window.tasks)} tasks; since the start ${whole(pool.report.lifetime.tasks)}`;
    $("signals").replaceChildren(...SIGNALS.map((key) => {
      const signal = pool.report.window[key], [value, since] = pool.values[signal.name];
      const card = make("article", undefined, { ok: "ok", missed: "missed" }[signal.verdict] || "open");
      card.id = `signal-${key}`;
      card.dataset.verdict = signal.verdict;
      card.append(make("h3", signal.name), make("p", value, "value"), make("p", VERDICTS[signal.verdict], "verdict"));
      if (signal.target) card.append(make("p", `target ${signal.target}`, "target"));
      if (signal.reason) card.append(make("p", signal.reason, "reason"));
      card.append(make("p", `since the start: ${since}`, "since"));
      return card;
    }));
  }
  function showSlowest(pool) {
    const longest = Math.max(0.001, ...pool.slowest.map((task) => task.seconds));
    $("slowest").replaceChildren(...pool.slowest.map((task) => {
      const row = make("tr"), bar = make("div", undefined, "bar"), cell = make("td"), parts = [];
      PHASES.forEach((phase, at) => {
        if (!task[phase]) return;
        const part = make("span", undefined, `p${at}`);
        part.style.width = `${100 * task[phase] / longest}%`;
        bar.append(part);
        parts.push(`${phase.replace("_", " ")} ${seconds(task[phase])}`);
      });
      bar.setAttribute("role", "img");
      bar.setAttribute("aria-label", parts.join(", ") || "no phases");
      bar.title = parts.join(", ");
      cell.append(bar);
      const outcome = task.error ? `${task.outcome} (${task.error})` : task.outcome;
      row.append(make("td", seconds(task.seconds)), make("td", outcome), cell, make("td", task.request_id || "–"), make("td", task.trace_id || "–"), make("td", `${seconds(task.age)} ago`));
      return row;
    }));
  }
  function show() {
    const pool = pools.find((one) => one.pool === chosen);
    if (!pool) return;
    $("endpoint").textContent = `${pool.pool} → ${pool.endpoint} (${pool.stats.phase})`;
    $("explained").textContent = pool.explained;
    $("build").textContent = `speechpool ${pool.build.version}, Python ${pool.build.python}`;
    showSignals(pool);
    fill($("now"), NUMBERS.map(([key, name]) => [name, SECONDS.has(key) ? seconds(pool.stats[key]) : whole(pool.stats[key]), `now-${key}`]));
    const reasons = Object.entries(pool.stats.discarded).sort();
    fill($("closed"), reasons.length ? reasons.map(([reason, count]) => [reason, whole(count)]) : [["so far", "none"]]);
    showSlowest(pool);
    draw(histories.get(chosen));
    document.body.dataset.seq = pool.seq;
  }
  function choose(name) {
    chosen = name;
    $("pools").value = name;
    show();
  }
  function take(message) {
    pools = message.pools;
    pools.forEach(remember);
    const names = pools.map((pool) => pool.pool);
    if ([...$("pools").options].map((option) => option.value).join("\n") !== names.join("\n"))
      $("pools").replaceChildren(...names.map((name) => new Option(name, name)));
    $("choice").hidden = names.length < 2;
    if (!names.length) { say("No pool is there.", true); return; }
    say("live", false);
    if (names.includes(chosen)) show(); else choose(names[0]);
  }
  function say(text, lost) {
    if ($("state").textContent !== text) $("state").textContent = text;
    $("state").classList.toggle("lost", lost);
  }

  $("legend").replaceChildren("Phases:", ...PHASES.flatMap((phase, at) => [make("span", undefined, `key p${at}`), phase.replace("_", " ")]));
  $("pools").addEventListener("change", (event) => choose(event.target.value));
  build();
  const rebuild = () => { build(); if (chosen) draw(histories.get(chosen)); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", rebuild);
  let resizing;
  addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(rebuild, 150); });
  const source = new EventSource(`events${location.search}`);
  source.onmessage = (event) => take(JSON.parse(event.data));
  source.onerror = () => say("No numbers arrive: the monitor is away. This page tries again by itself.", true);
})();
