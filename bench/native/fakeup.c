// fakeup: an engine that is never the bottleneck, to measure gateways with.
//
//   fakeup --model NAME [--port PORT] [--uds PATH]
//
// It puts bytes on the wire as vLLM 0.32 does: HTTP/1.1 keep-alive, the head of a stream at once, then each SSE event
// in one send() and one chunk of the chunked coding. One thread, epoll; nothing is allocated per event.
//
// POST /v1/chat/completions reads these fields of the body, and no others:
//   max_tokens or max_completion_tokens    how many tokens the answer has (16)
//   stream                                 a role chunk, a chunk per token, [DONE]
//   stream_options.include_usage           a last chunk with the usage and no choices
//   stream_options.continuous_usage_stats  the usage so far in every chunk
//   seed                                   microseconds between the tokens of a stream; 0: as fast as they are read.
//                                          Not vLLM's meaning: it is a field that every gateway passes on.
// Paced tokens fall on multiples of their distance, so that all streams emit together, as running requests do in an
// engine's step; only the first token of a stream comes at once.
//
// A token's text is "@" and 15 digits: the microseconds of CLOCK_MONOTONIC when it was due (paced) or sent. The load
// client takes its delay from them.
#define _GNU_SOURCE
#include "fakeup_requests.h"
#include "files.h"
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/un.h>
#include <unistd.h>

// ---- connections ----

static void hang_up(connection *c) {
  if (c->is_streaming) stream_end(c);
  connections[c->fd] = NULL;
  close(c->fd);
  free(c->input);
  free(c->output);
  free(c);
}

static void welcome(int fd) {
  connection *c = must(calloc(1, sizeof *c));
  c->fd = fd;
  c->input_capacity = FIRST_INPUT_BYTES;
  c->input = must(malloc(c->input_capacity + 1));
  connections[fd] = c;
  struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
  epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
}

static void accept_all(int listener) {
  int on = 1;
  for (int count = 0; count < ACCEPTED_AT_ONCE; count++) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0) return;
    if (fd >= MAX_CONNECTIONS) {
      close(fd);
      return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    welcome(fd);
  }
}

static void serve_ready(connection *c, uint32_t events) {
  int result = events & EPOLLOUT ? write_queued(c) : 0;
  if (!result && events & (EPOLLIN | EPOLLHUP | EPOLLERR)) result = read_in(c);
  if (!result && c->closes_after && !c->is_streaming && !is_blocked(c)) result = -1;
  if (result < 0) hang_up(c);
}

static void step_due_streams(void) {
  uint64_t now = now_us();
  for (int k = streaming_count - 1; k >= 0; k--) {
    connection *c = streaming[k];
    if (c->due_us > now || is_blocked(c)) continue;
    int result = stream_step(c);
    if (!result && !c->is_streaming) result = c->closes_after && !is_blocked(c) ? -1 : take_requests(c);
    if (result < 0) hang_up(c);
  }
}

static struct timespec until_next_due(void) {
  uint64_t now = now_us(), wait = 1000000;
  for (int k = 0; k < streaming_count && wait; k++) {
    if (is_blocked(streaming[k])) continue;
    uint64_t due = streaming[k]->due_us;
    uint64_t left = due > now ? due - now : 0;
    if (left < wait) wait = left;
  }
  return (struct timespec){.tv_sec = (time_t)(wait / 1000000), .tv_nsec = (long)(wait % 1000000 * 1000)};
}

// ---- the process ----

static void listen_on(int fd, const struct sockaddr *address, socklen_t length, const char *name) {
  int on = 1;
  if (fd < 0) die(name);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, address, length) || listen(fd, 4096)) die(name);
  struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
  epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
}

static int listen_on_port(int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  listen_on(fd, (struct sockaddr *)&address, sizeof address, "port");
  return fd;
}

static int listen_on_path(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) {
    fprintf(stderr, "fakeup: the socket's path is too long: %s\n", path);
    exit(1);
  }
  strcpy(address.sun_path, path);
  unlink(path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
  listen_on(fd, (struct sockaddr *)&address, sizeof address, path);
  return fd;
}

static void stop(int number) {
  (void)number;
  is_stopping = 1;
}

static void run(int tcp, int uds) {
  struct epoll_event ready[READY_AT_ONCE];
  while (!is_stopping) {
    struct timespec wait = until_next_due();
    int count = epoll_pwait2(poller, ready, READY_AT_ONCE, &wait, NULL);
    for (int k = 0; k < count; k++) {
      int fd = ready[k].data.fd;
      if (fd == tcp || fd == uds) accept_all(fd);
      else if (connections[fd]) serve_ready(connections[fd], ready[k].events);
    }
    step_due_streams();
  }
}

static int usage(void) {
  fprintf(stderr, "usage: fakeup --model NAME [--port PORT] [--uds PATH]\n");
  return 2;
}

int main(int count, char **arguments) {
  static const struct option options[] = {
      {"model", required_argument, NULL, 'm'},
      {"port", required_argument, NULL, 'p'},
      {"uds", required_argument, NULL, 'u'},
      {NULL, 0, NULL, 0},
  };
  int port = 0;
  const char *path = NULL;
  for (int option; (option = getopt_long(count, arguments, "", options, NULL)) != -1;) {
    if (option == 'm') model = optarg;
    else if (option == 'p') port = atoi(optarg);
    else if (option == 'u') path = optarg;
    else return usage();
  }
  if (!model || strlen(model) > 200 || (!port && !path)) return usage();
  struct sigaction action = {.sa_handler = stop};
  sigaction(SIGTERM, &action, NULL);
  sigaction(SIGINT, &action, NULL);
  allow_many_files();
  if ((poller = epoll_create1(0)) < 0) die("epoll");
  int tcp = port ? listen_on_port(port) : -1;
  int uds = path ? listen_on_path(path) : -1;
  run(tcp, uds);
  if (path) unlink(path);
  return 0;
}
