// fakeup_stream.h: a connection of the fake engine, what is written to it, and the stream it may be in the middle of.
#ifndef FAKEUP_STREAM_H
#define FAKEUP_STREAM_H

#include "clock.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum {
  MAX_CONNECTIONS = 65536,
  READY_AT_ONCE = 512,
  ACCEPTED_AT_ONCE = 256,
  FIRST_INPUT_BYTES = 16 << 10,
  MAX_INPUT_BYTES = 16 << 20,
  MAX_TOKENS = 100000,
  DEFAULT_TOKENS = 16,
  MAX_INTERVAL = 256,
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
  int tokens, tokens_sent, interval, is_begun, with_usage, with_usage_in_each;
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

// The first token alone, then as many at once as was asked for, as vLLM does.
static int send_tokens(connection *c, uint64_t stamp) {
  int left = c->tokens - c->tokens_sent, count = !c->tokens_sent ? 1 : left < c->interval ? left : c->interval;
  c->tokens_sent += count;
  int is_last = c->tokens_sent == c->tokens;
  event_begin();
  add_chunk_head();
  add("{\"index\":0,\"delta\":{\"content\":\"@");
  add_stamp(stamp);
  while (--count) add(" tok");
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
  if (send_tokens(c, c->distance_us ? c->due_us : now_us()) < 0) return -1;
  if (c->distance_us) c->due_us = (c->due_us / c->distance_us + 1) * c->distance_us;
  if (c->tokens_sent < c->tokens) return 0;
  if (c->with_usage && send_usage(c) < 0) return -1;
  stream_end(c);
  return send_done(c);
}

#endif
