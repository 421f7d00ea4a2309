// sseload_answer.h: an answer read as it comes: freed of HTTP's framing, its events counted, and judged at its end.
#ifndef SSELOAD_ANSWER_H
#define SSELOAD_ANSWER_H

#include "http.h"
#include "sseload_connection.h"

// ---- what an answer says ----

static void read_stamps(connection *c, const char *line, const char *end, uint64_t now) {
  const char *at = memmem(line, (size_t)(end - line), "\"@", 2);
  if (!at || end - at < STAMP_DIGITS + 2) return;
  uint64_t stamp = 0;
  for (int digit = 0; digit < STAMP_DIGITS; digit++) stamp = stamp * 10 + (uint64_t)(at[2 + digit] - '0');
  c->stamps++;
  if (is_measuring) record(&measured.chunk_delay, now > stamp * 1000 ? now - stamp * 1000 : 0);
}

static void read_event(connection *c, const char *line, const char *end, uint64_t now) {
  if (end - line < 5 || memcmp(line, "data:", 5)) return;
  if (memmem(line, (size_t)(end - line), "[DONE]", 6)) {
    c->is_done = 1;
    return;
  }
  if (!c->events++) {
    begun++;
    if (is_measuring) record(&measured.first_chunk, now - c->asked_at);
  }
  measured.events += (uint64_t)is_measuring;
  if (asked.is_stamped) read_stamps(c, line, end, now);
  c->tokens = find_number(line, end, "\"completion_tokens\"", c->tokens);
}

static size_t read_lines(connection *c, const char *bytes, size_t length, uint64_t now) {
  const char *at = bytes, *end = bytes + length;
  for (const char *line_end; (line_end = memchr(at, '\n', (size_t)(end - at))); at = line_end + 1) {
    read_event(c, at, line_end, now);
  }
  return (size_t)(at - bytes);
}

static int keep_text(connection *c, const char *bytes, size_t length) {
  if (c->text_length + length >= TEXT_BYTES) {
    fail(c, &errors.incomplete, "too long", bytes, length);
    return -1;
  }
  memcpy(c->text + c->text_length, bytes, length);
  c->text_length += length;
  c->text[c->text_length] = 0;
  return 0;
}

// The body's bytes, freed of their framing; -1 when the connection was closed for them.
static int read_body(connection *c, const char *bytes, size_t length, uint64_t now) {
  if (!asked.is_stream) return keep_text(c, bytes, length);
  if (c->text_length) { // the line that was cut off goes on
    const char *line_end = memchr(bytes, '\n', length);
    size_t rest = line_end ? (size_t)(line_end - bytes) + 1 : length;
    if (keep_text(c, bytes, rest)) return -1;
    bytes += rest, length -= rest;
    if (line_end) c->text_length -= read_lines(c, c->text, c->text_length, now);
  }
  size_t used = read_lines(c, bytes, length, now);
  return used < length ? keep_text(c, bytes + used, length - used) : 0;
}

static int is_right(const connection *c) {
  if (c->tokens != asked.tokens) return 0;
  if (!asked.is_stream) return 1;
  return c->is_done && (!asked.is_stamped || c->stamps == asked.tokens);
}

static void finish(connection *c, uint64_t now) {
  if (!asked.is_stream) c->tokens = find_number(c->text, c->text + c->text_length, "\"completion_tokens\"", 0);
  if (!is_right(c)) {
    char what[120];
    snprintf(what, sizeof what, "%ld tokens, %d stamps, %d events of %d tokens%s", c->tokens, c->stamps, c->events,
             asked.tokens, asked.is_stream && !c->is_done ? ", no [DONE]" : "");
    fail(c, &errors.wrong, what, c->text, c->text_length);
    return;
  }
  if (is_measuring) {
    measured.requests++;
    measured.tokens += (uint64_t)c->tokens;
    record(&measured.latency, now - c->asked_at);
  }
  c->answered++;
  if (c->keeps_alive) go_on(c);
  else hang_up(c);
}

// ---- framing ----

static void begin_body(connection *c, const char *head_end) {
  const char *lines = memchr(c->text, '\n', c->text_length), *value;
  value = find_header(lines + 1, head_end, "connection");
  c->keeps_alive = !(value && !strncasecmp(value, "close", 5)) && strncmp(c->text, "HTTP/1.0", 8);
  c->state = IN_BODY;
  c->text_length = 0;
  if ((value = find_header(lines + 1, head_end, "transfer-encoding")) && !strncasecmp(value, "chunked", 7)) {
    c->framing = BY_CHUNKS;
    c->part = CHUNK_SIZE;
  } else if ((value = find_header(lines + 1, head_end, "content-length"))) {
    c->framing = BY_LENGTH;
    c->left = strtoul(value, NULL, 10);
  } else {
    c->framing = BY_CLOSE;
    c->keeps_alive = 0;
  }
}

// How many of the bytes belong to the head.
static size_t read_head(connection *c, const char *bytes, size_t length) {
  size_t before = c->text_length, kept = length;
  if (kept > TEXT_BYTES - 1 - before) kept = TEXT_BYTES - 1 - before;
  if (!kept || keep_text(c, bytes, kept)) return length;
  const char *end = memmem(c->text, c->text_length, "\r\n\r\n", 4);
  if (!end) return length;
  size_t used = (size_t)(end + 4 - c->text) - before;
  int status = c->text_length > 12 ? atoi(c->text + 9) : 0;
  if (status == 200) begin_body(c, end + 2);
  else if (status == 100) c->text_length = 0;
  else fail(c, &errors.status, "status", c->text + 9, c->text_length - 9);
  return used;
}

// A line of the chunked coding; whether it is complete.
static int read_size_line(connection *c, const char *bytes, size_t length, size_t *used) {
  const char *end = memchr(bytes, '\n', length);
  *used = end ? (size_t)(end - bytes) + 1 : length;
  size_t room = sizeof c->size_line - 1 - c->size_line_length, kept = *used < room ? *used : room;
  memcpy(c->size_line + c->size_line_length, bytes, kept);
  c->size_line_length += kept;
  c->size_line[c->size_line_length] = 0;
  return end != NULL;
}

// How many of the bytes it used.
static size_t read_chunked(connection *c, const char *bytes, size_t length, uint64_t now) {
  size_t used;
  if (c->part == CHUNK_SIZE || c->part == TRAILER) {
    if (!read_size_line(c, bytes, length, &used)) return used;
    size_t line_length = c->size_line_length;
    c->size_line_length = 0;
    if (c->part == CHUNK_SIZE) {
      c->left = strtoul(c->size_line, NULL, 16);
      c->part = c->left ? CHUNK_DATA : TRAILER;
    } else if (line_length <= 2) finish(c, now);
    return used;
  }
  used = length < c->left ? length : c->left;
  if (c->part == CHUNK_DATA && read_body(c, bytes, used, now)) return length;
  c->left -= used;
  if (!c->left) {
    c->left = c->part == CHUNK_DATA ? 2 : 0;
    c->part = c->part == CHUNK_DATA ? CHUNK_END : CHUNK_SIZE;
  }
  return used;
}

static size_t read_counted(connection *c, const char *bytes, size_t length, uint64_t now) {
  size_t used = length < c->left ? length : c->left;
  if (read_body(c, bytes, used, now)) return length;
  c->left -= used;
  if (!c->left) finish(c, now);
  return used;
}

static void feed(connection *c, const char *bytes, size_t length) {
  uint64_t now = now_ns();
  while (length && c->state != CLOSED) {
    size_t used = length;
    if (c->state == IN_HEAD) used = read_head(c, bytes, length);
    else if (c->framing == BY_CHUNKS) used = read_chunked(c, bytes, length, now);
    else if (c->framing == BY_LENGTH) used = read_counted(c, bytes, length, now);
    else read_body(c, bytes, length, now);
    bytes += used, length -= used;
  }
}

#endif
