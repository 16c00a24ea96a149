// The least that a client of paced streams can cost: an epoll loop for paced.py, against floor.c with --interval.
//
//   floor_client --port P --server-pid PID --streams N --warm S --seconds S
//
// Opens N connections, lets their first tasks begin spread over four seconds, runs task after task on each, and counts
// for `seconds` after `warm`. Prints one line of JSON, as paced_clients.py does.
// build: gcc -O2 -o floor_client floor_client.c -lcrypto
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define TEXT_LIMIT 2048
#define LATENESS_LIMIT 1000000  // microseconds
#define SPREAD 4000000000ull    // nanoseconds over which the first tasks begin: as long as a task lasts

struct stream {
  int fd;
  uint8_t head[4];  // of the frame that is being read
  size_t head_length;
  uint64_t left;    // bytes of it that are to come
  bool in_frame;
  uint8_t start[TEXT_LIMIT];  // the beginning of its payload
  size_t start_length;
};

static int port, server_pid, count = 1, epoll_fd;
static double warm = 4, seconds = 4;
static struct stream *streams;
static uint64_t tasks, frames, late_count;
static uint32_t lateness[LATENESS_LIMIT + 1];
static bool counting;
static uint8_t buffer[1 << 18];

static void fail(const char *what) {
  printf("{\"error\":\"%s\"}\n", what);
  exit(1);
}

static uint64_t clock_of(clockid_t id) {
  struct timespec t;
  clock_gettime(id, &t);
  return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void send_text(struct stream *s, const char *text) {
  static const uint8_t mask[4] = {0x12, 0x9a, 0x5c, 0xe1};
  uint8_t out[TEXT_LIMIT];
  size_t length = strlen(text), head = 2;
  out[0] = 0x81;
  if (length < 126) out[1] = 0x80 | length;
  else { out[1] = 0xfe; out[2] = length >> 8; out[3] = length; head = 4; }
  memcpy(out + head, mask, 4);
  head += 4;
  for (size_t i = 0; i < length; i++) out[head + i] = text[i] ^ mask[i & 3];
  if (send(s->fd, out, head + length, MSG_NOSIGNAL) != (ssize_t)(head + length)) fail("a connection does not take a task");
}

static void say(struct stream *s, const char *action, const char *payload) {
  char text[TEXT_LIMIT - 16];
  snprintf(text, sizeof text, "{\"header\":{\"action\":\"%s\",\"task_id\":\"%032x\",\"streaming\":\"duplex\"},\"payload\":{%s}}",
           action, s->fd, payload);
  send_text(s, text);
}

static void begin(struct stream *s) {
  say(s, "run-task",
      "\"model\":\"cosyvoice-v2\",\"task_group\":\"audio\",\"task\":\"tts\",\"function\":\"SpeechSynthesizer\",\"input\":{},"
      "\"parameters\":{\"voice\":\"longxiaochun_v2\",\"volume\":50,\"text_type\":\"PlainText\",\"sample_rate\":16000,\"rate\":1.0,"
      "\"format\":\"pcm\",\"pitch\":1.0,\"seed\":0,\"type\":0}");
}

static void on_frame(struct stream *s) {
  if ((s->head[0] & 15) == 2) {
    frames++;
    if (!counting) return;
    uint64_t due, at = clock_of(CLOCK_MONOTONIC);
    memcpy(&due, s->start, sizeof due);
    uint64_t late = at > due ? (at - due) / 1000 : 0;
    lateness[late < LATENESS_LIMIT ? late : LATENESS_LIMIT]++;
    late_count++;
  } else if (memmem(s->start, s->start_length, "task-started", 12)) {
    say(s, "continue-task", "\"input\":{\"text\":\"The quick brown fox jumps over the lazy dog.\"}");
    say(s, "finish-task", "\"input\":{}");
  } else if (memmem(s->start, s->start_length, "task-finished", 13)) {
    tasks++;
    begin(s);
  } else if (!memmem(s->start, s->start_length, "result-generated", 16)) fail("the server said what no task is answered with");
}

static void on_readable(struct stream *s) {
  ssize_t got = recv(s->fd, buffer, sizeof buffer, 0);
  if (got <= 0) fail("the server closed a connection");
  for (uint8_t *at = buffer, *end = buffer + got; at < end;) {
    if (!s->in_frame) {
      s->head[s->head_length++] = *at++;
      size_t short_length = s->head[1] & 127;
      if (s->head_length < 2 || (short_length == 126 && s->head_length < 4)) continue;
      s->left = short_length == 126 ? (size_t)s->head[2] << 8 | s->head[3] : short_length;
      s->in_frame = true;
      s->start_length = 0;
    }
    size_t part = (size_t)(end - at) < s->left ? (size_t)(end - at) : s->left;
    // Of audio only its time is wanted.
    size_t wanted = ((s->head[0] & 15) == 2 ? 8 : TEXT_LIMIT) - s->start_length, kept = part < wanted ? part : wanted;
    memcpy(s->start + s->start_length, at, kept);
    s->start_length += kept;
    at += part;
    if (!(s->left -= part)) {
      on_frame(s);
      s->in_frame = false;
      s->head_length = 0;
    }
  }
}

static void dial(struct stream *s) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int one = 1;
  s->fd = socket(AF_INET, SOCK_STREAM, 0);
  if (s->fd < 0 || connect(s->fd, (void *)&address, sizeof address)) fail("the server takes no connection");
  setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  static const char request[] =
      "GET /api-ws/v1/inference HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
  send(s->fd, request, sizeof request - 1, MSG_NOSIGNAL);
  char answer[512];
  size_t length = 0;
  while (length < 4 || memcmp(answer + length - 4, "\r\n\r\n", 4)) {
    if (length == sizeof answer || recv(s->fd, answer + length, 1, 0) != 1) fail("the server breaks off the handshake");
    length++;
  }
  fcntl(s->fd, F_SETFL, O_NONBLOCK);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = s};
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, s->fd, &event);
}

static uint32_t percentile(int percent) {
  uint64_t seen = 0, wanted = late_count * percent / 100;
  uint32_t at = 0;
  while (at < LATENESS_LIMIT && (seen += lateness[at]) <= wanted) at++;
  return at;
}

static void run(void) {
  struct epoll_event events[512];
  uint64_t opened = clock_of(CLOCK_MONOTONIC), from = opened + (uint64_t)(warm * 1e9), to = from + (uint64_t)(seconds * 1e9);
  uint64_t begun = 0, cpu = 0, tasks_before = 0, frames_before = 0;
  for (int started = 0;;) {
    uint64_t at = clock_of(CLOCK_MONOTONIC);
    while (started < count && at >= opened + SPREAD / count * started) begin(&streams[started++]);
    if (!begun && at >= from) {
      kill(server_pid, SIGUSR1);
      begun = at;
      cpu = clock_of(CLOCK_PROCESS_CPUTIME_ID);
      tasks_before = tasks;
      frames_before = frames;
      counting = true;
    }
    if (at >= to) {
      cpu = clock_of(CLOCK_PROCESS_CPUTIME_ID) - cpu;
      kill(server_pid, SIGUSR1);
      printf("{\"cpu\":%.6f,\"seconds\":%.6f,\"tasks\":%lu,\"frames\":%lu,\"p50_us\":%u,\"p99_us\":%u}\n", cpu / 1e9,
             (at - begun) / 1e9, tasks - tasks_before, frames - frames_before, percentile(50), percentile(99));
      return;
    }
    int ready = epoll_wait(epoll_fd, events, 512, started < count ? 1 : 20);
    for (int i = 0; i < ready; i++) on_readable(events[i].data.ptr);
  }
}

int main(int words, char **word) {
  for (int i = 1; i + 1 < words; i += 2) {
    if (!strcmp(word[i], "--port")) port = atoi(word[i + 1]);
    else if (!strcmp(word[i], "--server-pid")) server_pid = atoi(word[i + 1]);
    else if (!strcmp(word[i], "--streams")) count = atoi(word[i + 1]);
    else if (!strcmp(word[i], "--warm")) warm = atof(word[i + 1]);
    else if (!strcmp(word[i], "--seconds")) seconds = atof(word[i + 1]);
    else { fprintf(stderr, "unknown %s\n", word[i]); return 2; }
  }
  if (!port || !server_pid || count < 1) { fprintf(stderr, "--port, --server-pid and --streams are needed\n"); return 2; }
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // never outlive the benchmark
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  epoll_fd = epoll_create1(0);
  streams = calloc(count, sizeof *streams);
  for (int i = 0; i < count; i++) dial(&streams[i]);
  run();
  return 0;
}
