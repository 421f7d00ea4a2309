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
#include "clock.h"
#include "files.h"
#include "http.h"
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
  MAX_CONNECTIONS = 65536,
  READY_AT_ONCE = 512,
  ACCEPTED_AT_ONCE = 256,
  FIRST_INPUT_BYTES = 16 << 10,
  MAX_INPUT_BYTES = 16 << 20,
  MAX_TOKENS = 100000,
  DEFAULT_TOKENS = 16,
  PROMPT_TOKENS = 16,
  STAMP_DIGITS = 15,
  CHUNK_HEAD_BYTES = 16,
};

typedef struct {
  int fd;
  char *input;
  size_t input_length, input_capacity;
  char *output; // what the kernel would not take yet
  size_t output_sent, output_length, output_capacity;
  int wants_out, closes_after;
  // the stream that is being answered
  int is_streaming, position; // position: in `streaming`
  int tokens, tokens_sent, is_begun, with_usage, with_usage_in_each;
  uint64_t distance_us, due_us;
} connection;

static connection *connections[MAX_CONNECTIONS]; // by file descriptor
static connection *streaming[MAX_CONNECTIONS];
static int streaming_count;
static int poller;
static const char *model;
static volatile sig_atomic_t is_stopping;

static const char STREAM_HEAD[] = "HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\nserver: uvicorn\r\n"
                                  "content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
#define COMPLETION_ID "\"id\":\"chatcmpl-8f6b2d0c4e5a47b1a3f9d2c7e6b5a493\""

static uint64_t now_us(void) { return now_ns() / 1000; }

static void die(const char *what) {
  fprintf(stderr, "fakeup: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void *must(void *memory) {
  if (!memory) die("memory");
  return memory;
}

// ---- writing ----

static void watch(connection *c, int wants_out) {
  if (c->wants_out == wants_out) return;
  c->wants_out = wants_out;
  struct epoll_event event = {.events = EPOLLIN | (wants_out ? EPOLLOUT : 0), .data.fd = c->fd};
  epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
}

static int is_blocked(const connection *c) { return c->output_length != c->output_sent; }

static void queue(connection *c, const char *bytes, size_t length) {
  if (c->output_length + length > c->output_capacity) {
    c->output_capacity = (c->output_length + length) * 2;
    c->output = must(realloc(c->output, c->output_capacity));
  }
  memcpy(c->output + c->output_length, bytes, length);
  c->output_length += length;
  watch(c, 1);
}

// Sends, or queues what the kernel will not take; -1 when the client has gone.
static int write_out(connection *c, const char *bytes, size_t length) {
  if (is_blocked(c)) {
    queue(c, bytes, length);
    return 0;
  }
  c->output_length = c->output_sent = 0;
  ssize_t sent = send(c->fd, bytes, length, MSG_NOSIGNAL);
  if (sent < 0 && errno != EAGAIN) return -1;
  if (sent < 0) sent = 0;
  if ((size_t)sent < length) queue(c, bytes + sent, length - (size_t)sent);
  return 0;
}

static int write_queued(connection *c) {
  ssize_t sent = send(c->fd, c->output + c->output_sent, c->output_length - c->output_sent, MSG_NOSIGNAL);
  if (sent < 0) return errno == EAGAIN ? 0 : -1;
  c->output_sent += (size_t)sent;
  if (!is_blocked(c)) watch(c, 0);
  return 0;
}

// ---- events of a stream, built in place; the chunk's size goes before them when it is known ----

static char event_buffer[2048], *event_end;

static void event_begin(void) { event_end = event_buffer + CHUNK_HEAD_BYTES; }

static void add(const char *text) {
  size_t length = strlen(text);
  memcpy(event_end, text, length);
  event_end += length;
}

static void add_number(uint64_t number) {
  char digits[20];
  int count = 0;
  do digits[count++] = (char)('0' + number % 10);
  while (number /= 10);
  while (count) *event_end++ = digits[--count];
}

static void put_stamp(char *at, uint64_t stamp) {
  for (int digit = STAMP_DIGITS - 1; digit >= 0; digit--, stamp /= 10) at[digit] = (char)('0' + stamp % 10);
}

static void add_stamp(uint64_t stamp) {
  put_stamp(event_end, stamp);
  event_end += STAMP_DIGITS;
}

static void add_usage(int completion_tokens, const char *details) {
  add(",\"usage\":{\"prompt_tokens\":");
  add_number(PROMPT_TOKENS);
  add(",\"total_tokens\":");
  add_number((uint64_t)(PROMPT_TOKENS + completion_tokens));
  add(",\"completion_tokens\":");
  add_number((uint64_t)completion_tokens);
  add(details);
  add("}");
}

static void add_chunk_head(void) {
  add("data: {" COMPLETION_ID ",\"object\":\"chat.completion.chunk\",\"created\":1767225600,\"model\":\"");
  add(model);
  add("\",\"choices\":[");
}

static int event_send(connection *c) {
  static const char hex[] = "0123456789abcdef";
  size_t size = (size_t)(event_end - event_buffer - CHUNK_HEAD_BYTES);
  char *begin = event_buffer + CHUNK_HEAD_BYTES - 2;
  memcpy(begin, "\r\n", 2);
  do *--begin = hex[size % 16];
  while (size /= 16);
  add("\r\n");
  return write_out(c, begin, (size_t)(event_end - begin));
}

static int send_role(connection *c) {
  event_begin();
  add_chunk_head();
  add("{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]");
  if (c->with_usage_in_each) add_usage(0, ",\"completion_tokens_details\":null");
  add(",\"prompt_token_ids\":null,\"prompt_text\":null}\n\n");
  return event_send(c);
}

static int send_token(connection *c, uint64_t stamp) {
  int is_last = ++c->tokens_sent == c->tokens;
  event_begin();
  add_chunk_head();
  add("{\"index\":0,\"delta\":{\"content\":\"@");
  add_stamp(stamp);
  add("\"},\"logprobs\":null,\"finish_reason\":");
  add(is_last ? "\"length\",\"stop_reason\":null" : "null");
  add(",\"token_ids\":null}]");
  if (c->with_usage_in_each) add_usage(c->tokens_sent, ",\"completion_tokens_details\":null");
  add("}\n\n");
  return event_send(c);
}

static int send_usage(connection *c) {
  event_begin();
  add_chunk_head();
  add("]");
  add_usage(c->tokens, ",\"prompt_tokens_details\":{\"cached_tokens\":0}");
  add("}\n\n");
  return event_send(c);
}

static int send_done(connection *c) {
  event_begin();
  add("data: [DONE]\n\n");
  if (event_send(c) < 0) return -1;
  return write_out(c, "0\r\n\r\n", 5);
}

// ---- streams ----

static void stream_begin(connection *c, uint64_t distance_us) {
  c->is_streaming = 1;
  c->is_begun = c->tokens_sent = 0;
  c->distance_us = distance_us;
  c->due_us = now_us();
  c->position = streaming_count;
  streaming[streaming_count++] = c;
}

static void stream_end(connection *c) {
  streaming[c->position] = streaming[--streaming_count];
  streaming[c->position]->position = c->position;
  c->is_streaming = 0;
}

// Its next token; -1 when the client has gone.
static int stream_step(connection *c) {
  if (!c->is_begun && send_role(c) < 0) return -1;
  c->is_begun = 1;
  if (send_token(c, c->distance_us ? c->due_us : now_us()) < 0) return -1;
  if (c->distance_us) c->due_us = (c->due_us / c->distance_us + 1) * c->distance_us;
  if (c->tokens_sent < c->tokens) return 0;
  if (c->with_usage && send_usage(c) < 0) return -1;
  stream_end(c);
  return send_done(c);
}

// ---- answers ----

static int answer_json(connection *c, const char *status, const char *body) {
  char text[2048];
  int length = snprintf(text, sizeof text,
                        "HTTP/1.1 %s\r\nserver: uvicorn\r\ncontent-length: %zu\r\ncontent-type: application/json\r\n\r\n%s",
                        status, strlen(body), body);
  return write_out(c, text, (size_t)length);
}

static int answer_whole(connection *c) {
  static char body[MAX_TOKENS * 4 + 2048], head[256];
  char *end = body + sprintf(body,
                             "{" COMPLETION_ID ",\"object\":\"chat.completion\",\"created\":1767225600,\"model\":\"%s\","
                             "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"@",
                             model);
  put_stamp(end, now_us());
  end += STAMP_DIGITS;
  for (int token = 1; token < c->tokens; token++, end += 4) memcpy(end, " tok", 4);
  end += sprintf(end,
                 "\",\"refusal\":null,\"tool_calls\":[]},\"logprobs\":null,\"finish_reason\":\"length\","
                 "\"stop_reason\":null}],\"service_tier\":null,\"system_fingerprint\":null,\"usage\":"
                 "{\"prompt_tokens\":%d,\"total_tokens\":%d,\"completion_tokens\":%d,\"prompt_tokens_details\":null},"
                 "\"prompt_logprobs\":null}",
                 PROMPT_TOKENS, PROMPT_TOKENS + c->tokens, c->tokens);
  int head_length = sprintf(head,
                            "HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\nserver: uvicorn\r\n"
                            "content-length: %zu\r\ncontent-type: application/json\r\n\r\n",
                            (size_t)(end - body));
  memmove(body + head_length, body, (size_t)(end - body));
  memcpy(body, head, (size_t)head_length);
  return write_out(c, body, (size_t)(end - body + head_length));
}

static int answer_chat(connection *c, const char *body, const char *end) {
  long limit = find_number(body, end, "\"max_tokens\"", DEFAULT_TOKENS);
  long tokens = find_number(body, end, "\"max_completion_tokens\"", limit);
  c->tokens = tokens < 1 ? 1 : tokens > MAX_TOKENS ? MAX_TOKENS : (int)tokens;
  if (!find_true(body, end, "\"stream\"")) return answer_whole(c);
  c->with_usage = find_true(body, end, "\"include_usage\"");
  c->with_usage_in_each = c->with_usage && find_true(body, end, "\"continuous_usage_stats\"");
  if (write_out(c, STREAM_HEAD, sizeof STREAM_HEAD - 1) < 0) return -1;
  stream_begin(c, (uint64_t)find_number(body, end, "\"seed\"", 0));
  return 0;
}

// What routers ask an engine before they send it work.
static int answer_about(connection *c, const char *path, size_t length) {
  static const struct {
    const char *path, *format;
  } known[] = {
      {"/health", "{}"},
      {"/version", "{\"version\":\"0.32.0\"}"},
      {"/metrics", "vllm:num_requests_running 0\nvllm:num_requests_waiting 0\n"},
      {"/v1/models", "{\"object\":\"list\",\"data\":[{\"id\":\"%s\",\"object\":\"model\",\"created\":1767225600,"
                     "\"owned_by\":\"vllm\",\"root\":\"%s\",\"parent\":null,\"max_model_len\":32768}]}"},
      {"/get_model_info", "{\"model_path\":\"%s\",\"served_model_name\":\"%s\",\"is_generation\":true}"},
      {"/get_server_info", "{\"model_path\":\"%s\",\"served_model_name\":\"%s\",\"tp_size\":1,\"dp_size\":1}"},
  };
  for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
    if (strlen(known[k].path) != length || memcmp(path, known[k].path, length)) continue;
    char body[1024];
    snprintf(body, sizeof body, known[k].format, model, model);
    return answer_json(c, "200 OK", body);
  }
  return answer_json(c, "404 Not Found", "{\"error\":{\"message\":\"not found\",\"type\":\"NotFoundError\",\"code\":404}}");
}

// ---- requests ----

static int answer(connection *c, const char *target, const char *target_end, const char *body, const char *end) {
  static const char chat[] = "/v1/chat/completions";
  const char *query = memchr(target, '?', (size_t)(target_end - target));
  size_t length = (size_t)((query ? query : target_end) - target);
  int is_chat = length == sizeof chat - 1 && !memcmp(target, chat, length);
  return is_chat ? answer_chat(c, body, end) : answer_about(c, target, length);
}

// Answers the first request of the input; how many bytes it had, 0 while it is not complete, -1 to hang up.
static ssize_t take_request(connection *c) {
  char *input_end = c->input + c->input_length;
  char *head_end = memmem(c->input, c->input_length, "\r\n\r\n", 4);
  if (!head_end) return 0;
  char *body = head_end + 4, *headers = (char *)memchr(c->input, '\n', body - c->input) + 1;
  if (find_header(headers, body, "transfer-encoding")) {
    answer_json(c, "411 Length Required", "{\"error\":{\"message\":\"fakeup reads bodies with a content-length\"}}");
    return -1;
  }
  const char *value = find_header(headers, body, "content-length");
  size_t length = value ? strtoul(value, NULL, 10) : 0;
  if ((size_t)(input_end - body) < length) return 0;
  char *target = memchr(c->input, ' ', head_end - c->input);
  char *target_end = target ? memchr(target + 1, ' ', head_end - target - 1) : NULL;
  if (!target_end) return -1;
  value = find_header(headers, body, "connection");
  c->closes_after = value && !strncasecmp(value, "close", 5);
  if (answer(c, target + 1, target_end, body, body + length) < 0) return -1;
  return body + length - c->input;
}

// -1 to hang up.
static int take_requests(connection *c) {
  while (c->input_length && !c->is_streaming) {
    ssize_t taken = take_request(c);
    if (taken <= 0) return (int)taken;
    c->input_length -= (size_t)taken;
    memmove(c->input, c->input + taken, c->input_length + 1);
    if (c->closes_after && !c->is_streaming && !is_blocked(c)) return -1;
  }
  return 0;
}

// -1 to hang up.
static int read_in(connection *c) {
  if (c->input_length == c->input_capacity) {
    if (c->input_capacity >= MAX_INPUT_BYTES) return -1;
    c->input_capacity *= 2;
    c->input = must(realloc(c->input, c->input_capacity + 1));
  }
  ssize_t got = recv(c->fd, c->input + c->input_length, c->input_capacity - c->input_length, 0);
  if (got == 0 || (got < 0 && errno != EAGAIN)) return -1;
  if (got < 0) return 0;
  c->input_length += (size_t)got;
  c->input[c->input_length] = 0;
  return take_requests(c);
}

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
