// fakeup_requests.h: requests taken from a connection's input, and their answers or the streams they begin.
#ifndef FAKEUP_REQUESTS_H
#define FAKEUP_REQUESTS_H

#include "fakeup_stream.h"
#include "http.h"

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
  long interval = find_number(body, end, "\"stream_interval\"", 1);
  c->interval = interval < 1 ? 1 : interval > MAX_INTERVAL ? MAX_INTERVAL : (int)interval;
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

#endif
