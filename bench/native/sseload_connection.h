// sseload_connection.h: what is asked, the connections it is asked on, and what is counted.
#ifndef SSELOAD_CONNECTION_H
#define SSELOAD_CONNECTION_H

#include "clock.h"
#include "histogram.h"
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
  READY_AT_ONCE = 1024,
  DIALLED_AT_ONCE = 64, // more would overflow the listening queue of some servers
  MAX_CONNECT_ERRORS = 1000,
  READ_BYTES = 65536,
  TEXT_BYTES = 65536, // a head, an event, or the whole of an answer that is not streamed
  STAMP_DIGITS = 15,
  POLL_NS = 20000000,
  MAX_WARMUP_SECONDS = 8,
};

typedef enum { CLOSED, CONNECTING, IDLE, IN_HEAD, IN_BODY } state;
typedef enum { BY_LENGTH, BY_CHUNKS, BY_CLOSE } framing;
typedef enum { CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER } chunk_part;

typedef struct {
  int fd;
  state state;
  framing framing;
  chunk_part part;
  int keeps_alive;
  size_t sent; // of the request
  size_t left; // of the body, or of the chunk
  char size_line[64];
  size_t size_line_length;
  char *text; // what of the answer is not read yet
  size_t text_length;
  long tokens; // as the usage tells
  int events, stamps, is_done;
  long answered; // of its turns
  uint64_t asked_at;
} connection;

static struct {
  const char *host, *path, *uds, *model, *extra;
  int port, connections, tokens, is_stream, is_stamped, holds, prompt_bytes;
  long pace_us, answers;
  double warmup_seconds, seconds;
  char headers[4096];
} asked = {.host = "127.0.0.1", .path = "/v1/chat/completions", .extra = "", .connections = 1, .tokens = 16,
           .prompt_bytes = 1000, .pace_us = -1, .warmup_seconds = 1, .seconds = 5};

static struct {
  uint64_t requests, tokens, events;
  histogram latency, first_chunk, chunk_delay;
} measured;

static struct {
  uint64_t status, incomplete, wrong, connection;
  char first[240];
} errors;

static char *request;
static size_t request_length;
static union {
  struct sockaddr any;
  struct sockaddr_in tcp;
  struct sockaddr_un uds;
} address;
static socklen_t address_length;
static connection *connections;
static int poller, dialling, dialled, resting, begun, begun_before;
static long turns = LONG_MAX; // of each connection, before it rests
static int is_measuring;
static volatile sig_atomic_t is_stopping;

static void die(const char *what, const char *why) {
  fprintf(stderr, "sseload: %s: %s\n", what, why);
  exit(1);
}

static void *must(void *memory) {
  if (!memory) die("memory", strerror(errno));
  return memory;
}

static void count_error(uint64_t *kind, const char *what, const char *bytes, size_t length) {
  ++*kind;
  if (errors.first[0]) return;
  int end = snprintf(errors.first, 80, "%s: ", what);
  for (size_t k = 0; k < length && end < (int)sizeof errors.first - 1; k++) {
    unsigned char byte = (unsigned char)bytes[k];
    errors.first[end++] = byte < ' ' || byte == '"' || byte == '\\' || byte > '~' ? ' ' : (char)byte;
  }
}

// ---- connections ----

static void watch(connection *c, uint32_t events) {
  struct epoll_event event = {.events = events, .data.ptr = c};
  epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
}

// A Unix socket whose queue is full refuses with EAGAIN: the connection stays closed, and is dialled again later.
static void dial(connection *c) {
  int on = 1;
  c->fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (c->fd < 0) die("socket", strerror(errno));
  if (!asked.uds) setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (connect(c->fd, &address.any, address_length) && errno != EINPROGRESS) {
    if (errno != EAGAIN) count_error(&errors.connection, "connect", strerror(errno), strlen(strerror(errno)));
    close(c->fd);
    return;
  }
  struct epoll_event event = {.events = EPOLLOUT, .data.ptr = c};
  epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event);
  c->state = CONNECTING;
  dialling++;
}

static void hang_up(connection *c) {
  if (c->state == CONNECTING) dialling--;
  close(c->fd);
  c->state = CLOSED;
  dialled--;
}

static void dial_more(void) {
  for (int k = 0; k < asked.connections && dialled < asked.connections && dialling < DIALLED_AT_ONCE; k++) {
    if (connections[k].state != CLOSED) continue;
    dial(&connections[k]);
    if (connections[k].state == CLOSED) return;
    dialled++;
  }
  if (errors.connection > MAX_CONNECT_ERRORS) die("gave up", errors.first);
}

static void send_rest(connection *c) {
  while (c->sent < request_length) {
    ssize_t sent = send(c->fd, request + c->sent, request_length - c->sent, MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EAGAIN) watch(c, EPOLLIN | EPOLLOUT);
      return;
    }
    c->sent += (size_t)sent;
  }
}

static void ask(connection *c) {
  c->state = IN_HEAD;
  c->sent = c->text_length = c->size_line_length = 0;
  c->tokens = c->events = c->stamps = c->is_done = 0;
  c->asked_at = now_ns();
  send_rest(c);
}

static void go_on(connection *c) {
  c->state = IDLE;
  if (c->answered < turns) ask(c);
  else resting++;
}

static void connected(connection *c) {
  int error = 0;
  socklen_t length = sizeof error;
  dialling--;
  c->state = IDLE;
  getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
  if (error) {
    count_error(&errors.connection, "connect", strerror(error), strlen(strerror(error)));
    hang_up(c);
    return;
  }
  watch(c, EPOLLIN);
  go_on(c);
}

static void fail(connection *c, uint64_t *kind, const char *what, const char *bytes, size_t length) {
  count_error(kind, what, bytes, length);
  hang_up(c);
}

#endif
