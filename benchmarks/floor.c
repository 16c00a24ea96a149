// The server of task_cost.py, paced.py and first_packet.py: an epoll loop that speaks the task protocol over ws or wss
// on loopback, and does nothing else, so that the client under test is the limit and not its peer.
//
//   floor server [--port 0] [--frames 40] [--size 3200] [--interval 0] [--certificate FILE]
//
// Prints "READY <port>". A task is answered with task-started, then, after finish-task, with `frames` binary frames of
// `size` bytes, a result-generated before each third of them, and task-finished. A run-task of Sambert's, which carries
// its text, is answered with all of it at once. With BATCH in the environment a whole reply leaves in one write, without
// it each frame has its own.
//
// With --interval each frame of audio leaves that many milliseconds after the one before it, by plan and not by when that
// one left, and carries its planned time (nanoseconds of CLOCK_MONOTONIC) in its first eight bytes. SIGUSR1 then prints
// how late frames have left since the last SIGUSR1, as a line of JSON.
// With --certificate, a PEM file of the chain and its key, it speaks wss.
// build: gcc -O2 -o floor floor.c -lssl -lcrypto
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_FD 20000
#define READ_BUFFER 16384
#define EVENT_LIMIT 1024
#define LATENESS_LIMIT 1000000  // microseconds

struct connection {
  int fd;
  SSL *tls;  // null: plain
  bool upgraded, closed, blocked, sambert, in_line;
  uint8_t in[READ_BUFFER];
  size_t in_length;
  char task[40];
  uint8_t *out;  // the whole reply of a task, or one frame of it
  size_t out_length, out_sent;
  int item, items;  // of the reply; items is 0 while no task runs
  uint64_t due;     // when the next frame of audio leaves, if paced
};

static int port = 0, frames = 40, size = 3200, epoll_fd;
static bool batch;
static uint64_t interval;  // nanoseconds
static uint8_t *payload;
static SSL_CTX *tls_context;
static volatile sig_atomic_t stopped, asked;
static struct connection *connections[MAX_FD], *dead[MAX_FD];
static int dead_count;

// Who waits for the time of their next frame. All wait for the same interval, so that who came first is due first.
static struct connection *line[MAX_FD];
static unsigned line_first, line_end;
static uint32_t lateness[LATENESS_LIMIT + 1], late_count;

static void on_signal(int number) { if (number == SIGUSR1) asked = 1; else stopped = 1; }

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void watch(int operation, int fd, uint32_t events) {
  struct epoll_event event = {.events = events, .data.fd = fd};
  epoll_ctl(epoll_fd, operation, fd, &event);
}

// What a call of OpenSSL's has moved, as recv and send tell it. Its handshake is part of the first reads.
static ssize_t moved(struct connection *c, int result) {
  if (result > 0) return result;
  int error = SSL_get_error(c->tls, result);
  if (error == SSL_ERROR_ZERO_RETURN) return 0;
  errno = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? EAGAIN : ECONNRESET;
  return -1;
}

static ssize_t receive(struct connection *c, void *data, size_t length) {
  if (!c->tls) return recv(c->fd, data, length, 0);
  ERR_clear_error();  // what another connection has left
  return moved(c, SSL_read(c->tls, data, length));
}

static ssize_t transmit(struct connection *c, const void *data, size_t length) {
  if (!c->tls) return send(c->fd, data, length, MSG_NOSIGNAL);
  ERR_clear_error();
  return moved(c, SSL_write(c->tls, data, length));
}

// Freed at the end of the loop's turn, as callers up the stack still hold it.
static void drop(struct connection *c) {
  if (c->closed) return;
  c->closed = true;
  epoll_ctl(epoll_fd, EPOLL_CTL_DEL, c->fd, 0);
  close(c->fd);
  connections[c->fd] = 0;
  if (!c->in_line) dead[dead_count++] = c;  // else when its turn comes
}

// ---------------------------------------------------------------------------------------------- frames
static size_t frame(uint8_t *out, int opcode, const void *data, size_t length) {
  size_t head = 2;
  out[0] = 0x80 | opcode;
  if (length < 126) out[1] = length;
  else { out[1] = 126; out[2] = length >> 8; out[3] = length; head = 4; }
  memcpy(out + head, data, length);
  return head + length;
}

static size_t event_frame(uint8_t *out, struct connection *c, const char *event, const char *rest) {
  char json[EVENT_LIMIT];
  int length = snprintf(json, sizeof json, "{\"header\":{\"task_id\":\"%s\",\"event\":\"%s\",\"attributes\":%s",
                        c->task, event, rest);
  return frame(out, 1, json, length);
}

static bool is_event(struct connection *c) {
  int third = frames / 3;
  return c->item == 0 || c->item == third + 1 || c->item == 2 * third + 2;
}

// Item `item` of a reply: three thirds of audio, an event before each, and the end.
static size_t build(struct connection *c, uint8_t *out) {
  int item = c->item;
  if (item == c->items - 1)
    return event_frame(out, c, "task-finished",
                       "{\"request_uuid\":\"0a9dba9e-d3a6-45a4-be6d-xxxxxxxxxxxx\"}},\"payload\":{\"output\":"
                       "{\"sentence\":{\"words\":[]}},\"usage\":{\"characters\":120}}}");
  if (is_event(c)) {
    char rest[EVENT_LIMIT];
    if (c->sambert)
      snprintf(rest, sizeof rest,
               "{}},\"payload\":{\"output\":{\"sentence\":{\"begin_time\":%d,\"end_time\":%d,\"words\":[]}},\"usage\":null}}",
               item * 100, item * 100);
    else snprintf(rest, sizeof rest,
             "{}},\"payload\":{\"output\":{\"type\":\"sentence-synthesis\",\"sentence\":{\"index\":%d,\"words\":[]},"
             "\"original_text\":\"The quick brown fox jumps over the lazy dog.\"},\"usage\":{\"characters\":%d}}}",
             item, item * 3);
    return event_frame(out, c, "result-generated", rest);
  }
  memcpy(payload, &c->due, sizeof c->due);
  return frame(out, 2, payload, size);
}

// Whether the next item leaves later. If not, and it is audio, it is the turn of the one after it.
static bool waits(struct connection *c) {
  if (!interval || is_event(c) || c->item == c->items - 1) return false;
  uint64_t at = now();
  if (at < c->due) {
    if (!c->in_line) { c->in_line = true; line[line_end++ % MAX_FD] = c; }
    return true;
  }
  uint64_t late = (at - c->due) / 1000;
  lateness[late < LATENESS_LIMIT ? late : LATENESS_LIMIT]++;
  late_count++;
  return false;
}

static void emit(struct connection *c) {
  while (c->items) {
    if (c->out_sent == c->out_length) {
      c->out_sent = c->out_length = 0;
      if (c->item == c->items) { c->items = 0; return; }
      if (waits(c)) return;
      bool audio = interval && !is_event(c);
      do c->out_length += build(c, c->out + c->out_length);
      while (++c->item < c->items && batch);
      if (audio) c->due += interval;
    }
    ssize_t sent = transmit(c, c->out + c->out_sent, c->out_length - c->out_sent);
    if (sent < 0 && errno != EAGAIN) { drop(c); return; }
    if (sent < 0) {
      if (!c->blocked) { c->blocked = true; watch(EPOLL_CTL_MOD, c->fd, EPOLLIN | EPOLLOUT); }
      return;
    }
    c->out_sent += sent;
  }
}

static void reply(struct connection *c, const uint8_t *data, size_t length) {
  if (transmit(c, data, length) != (ssize_t)length) drop(c);
}

// ---------------------------------------------------------------------------------------------- instructions
static void speak(struct connection *c) {
  c->item = 0;
  c->items = frames + 4;
  c->out_sent = c->out_length = 0;
  c->due = now();
  emit(c);
}

static void on_text(struct connection *c, uint8_t *text, size_t length) {
  if (memmem(text, length, "finish-task", 11)) {
    c->sambert = false;
    speak(c);
  } else if (memmem(text, length, "run-task", 8)) {
    uint8_t *end = text + length, *id = memmem(text, length, "\"task_id\"", 9), out[EVENT_LIMIT + 4];
    if (id) id = memchr(id + 9, '"', end - (id + 9));
    if (!id || id + 33 > end) { drop(c); return; }
    memcpy(c->task, id + 1, 32);
    c->task[32] = 0;
    reply(c, out, event_frame(out, c, "task-started", "{}},\"payload\":{}}"));
    if (c->closed || !memmem(text, length, "\"streaming\":\"out\"", 17)) return;
    c->sambert = true;
    speak(c);
  }
}

static bool upgrade(struct connection *c) {
  c->in[c->in_length] = 0;
  char *head = (char *)c->in, *end = strstr(head, "\r\n\r\n"), *key = strcasestr(head, "Sec-WebSocket-Key:");
  if (!end) return false;
  if (!key) { drop(c); return false; }
  for (key += 18; *key == ' '; key++);
  char salted[100], accept[40], answer[300];
  uint8_t digest[20];
  snprintf(salted, sizeof salted, "%.24s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key);
  SHA1((uint8_t *)salted, strlen(salted), digest);
  EVP_EncodeBlock((uint8_t *)accept, digest, 20);
  int length = snprintf(answer, sizeof answer,
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Accept: %s\r\n\r\n", accept);
  reply(c, (uint8_t *)answer, length);
  c->upgraded = true;
  size_t used = end + 4 - head;
  memmove(c->in, c->in + used, c->in_length - used);
  c->in_length -= used;
  return !c->closed;
}

static void on_frame(struct connection *c, int opcode, uint8_t *data, size_t length) {
  uint8_t out[130];
  if (opcode == 8) { reply(c, out, frame(out, 8, "\x03\xe8", 2)); drop(c); }
  else if (opcode == 9 && length < 126) reply(c, out, frame(out, 10, data, length));
  else if (opcode == 1) on_text(c, data, length);
}

static void on_readable(struct connection *c) {
  ssize_t got = receive(c, c->in + c->in_length, READ_BUFFER - c->in_length - 1);
  if (got < 0 && errno == EAGAIN) return;
  if (got <= 0) { drop(c); return; }
  c->in_length += got;
  if (!c->upgraded && !upgrade(c)) return;
  size_t at = 0;
  while (c->in_length - at >= 6) {
    uint8_t *head = c->in + at;
    size_t length = head[1] & 127, skip = 2;
    if (length == 127) { drop(c); return; }
    if (length == 126) { length = head[2] << 8 | head[3]; skip = 4; }
    if (c->in_length - at < skip + 4 + length) break;
    uint8_t *mask = head + skip, *data = mask + 4;
    for (size_t i = 0; i < length; i++) data[i] ^= mask[i & 3];
    on_frame(c, head[0] & 15, data, length);
    if (c->closed) return;
    at += skip + 4 + length;
  }
  memmove(c->in, c->in + at, c->in_length - at);
  c->in_length -= at;
}

// ---------------------------------------------------------------------------------------------- the loop
static int listen_on(void) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  if (bind(fd, (void *)&address, length) || listen(fd, 4096) || getsockname(fd, (void *)&address, &length)) {
    perror("listen");
    exit(1);
  }
  port = ntohs(address.sin_port);
  return fd;
}

static void accept_all(int listener) {
  for (int fd; (fd = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0;) {
    int one = 1;
    struct connection *c = fd < MAX_FD ? calloc(1, sizeof *c) : 0;
    if (!c) { close(fd); continue; }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->fd = fd;
    if (tls_context) {
      c->tls = SSL_new(tls_context);
      SSL_set_fd(c->tls, fd);
      SSL_set_accept_state(c->tls);
    }
    c->out = malloc((size_t)(batch ? frames + 4 : 1) * (size + EVENT_LIMIT + 4));
    connections[fd] = c;
    watch(EPOLL_CTL_ADD, fd, EPOLLIN);
  }
}

// Fill `wait` with the time until the first frame of the line is due, or a second.
static void look_ahead(struct timespec *wait) {
  *wait = (struct timespec){.tv_sec = 1};
  if (line_first == line_end) return;
  uint64_t at = now(), due = line[line_first % MAX_FD]->due, left = due > at ? due - at : 0;
  *wait = (struct timespec){.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
}

static void send_due(void) {
  uint64_t at = now();
  while (line_first != line_end && line[line_first % MAX_FD]->due <= at) {
    struct connection *c = line[line_first++ % MAX_FD];
    c->in_line = false;
    if (c->closed) dead[dead_count++] = c;
    else if (!c->blocked) emit(c);
  }
}

static uint32_t percentile(int percent) {
  uint64_t seen = 0, wanted = (uint64_t)late_count * percent / 100;
  uint32_t at = 0;
  while (at < LATENESS_LIMIT && (seen += lateness[at]) <= wanted) at++;
  return at;
}

static void tell_lateness(void) {
  printf("{\"frames\":%u,\"p50_us\":%u,\"p99_us\":%u}\n", late_count, percentile(50), percentile(99));
  fflush(stdout);
  memset(lateness, 0, sizeof lateness);
  late_count = 0;
}

static void speak_tls(const char *certificate) {
  tls_context = SSL_CTX_new(TLS_server_method());
  SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  if (SSL_CTX_use_certificate_chain_file(tls_context, certificate) != 1 ||
      SSL_CTX_use_PrivateKey_file(tls_context, certificate, SSL_FILETYPE_PEM) != 1) {
    fprintf(stderr, "%s is no PEM file of a certificate and its key\n", certificate);
    exit(1);
  }
}

static void serve(int listener) {
  struct epoll_event events[512];
  struct timespec wait;
  watch(EPOLL_CTL_ADD, listener, EPOLLIN);
  while (!stopped) {
    if (asked) { asked = 0; tell_lateness(); }
    look_ahead(&wait);
    int count = epoll_pwait2(epoll_fd, events, 512, &wait, 0);
    for (int i = 0; i < count; i++) {
      int fd = events[i].data.fd;
      if (fd == listener) { accept_all(listener); continue; }
      struct connection *c = connections[fd];
      if (!c) continue;
      if (events[i].events & EPOLLOUT) { c->blocked = false; watch(EPOLL_CTL_MOD, fd, EPOLLIN); emit(c); }
      if (!c->closed && events[i].events & ~EPOLLOUT)
        do on_readable(c); while (!c->closed && c->tls && SSL_pending(c->tls));  // of those no event comes
    }
    send_due();
    while (dead_count) { struct connection *c = dead[--dead_count]; SSL_free(c->tls); free(c->out); free(c); }
  }
}

int main(int count, char **words) {
  if (count < 2 || strcmp(words[1], "server")) { fprintf(stderr, "usage: floor server [--port P] [--frames N] [--size N] [--interval MS] [--certificate FILE]\n"); return 2; }
  for (int i = 2; i + 1 < count; i += 2) {
    if (!strcmp(words[i], "--port")) port = atoi(words[i + 1]);
    else if (!strcmp(words[i], "--frames")) frames = atoi(words[i + 1]);
    else if (!strcmp(words[i], "--size")) size = atoi(words[i + 1]);
    else if (!strcmp(words[i], "--interval")) interval = atoi(words[i + 1]) * 1000000ull;
    else if (!strcmp(words[i], "--certificate")) speak_tls(words[i + 1]);
    else { fprintf(stderr, "unknown %s\n", words[i]); return 2; }
  }
  if (frames < 3 || size < 8 || size > 65535) { fprintf(stderr, "frames from 3, size from 8 to 65535\n"); return 2; }
  batch = !interval && getenv("BATCH");
  signal(SIGTERM, on_signal);
  signal(SIGINT, on_signal);
  signal(SIGUSR1, on_signal);
  signal(SIGPIPE, SIG_IGN);
  prctl(PR_SET_PDEATHSIG, SIGTERM);  // never outlive the benchmark
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  epoll_fd = epoll_create1(0);
  payload = malloc(size);
  memset(payload, 0x5a, size);
  int listener = listen_on();
  printf("READY %d\n", port);
  fflush(stdout);
  serve(listener);
  return 0;
}
