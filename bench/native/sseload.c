// sseload: asks an OpenAI-compatible server for chat completions, checks every answer, and tells how fast they came.
//
//   sseload --model NAME (--port PORT | --uds PATH) [--connections N] [--tokens N] [--stream] [--stamped]
//           [--pace-us N] [--warmup-seconds S] [--seconds S] [--prompt-bytes N] [--header LINE]… [--extra JSON] [--hold]
//
// Closed loop: each of N connections sends its next request when its last answer is complete. One thread, epoll.
//   --stamped   the server is fakeup: every token brings the time it was made at, and every one must arrive
//   --pace-us   `seed` in the body, which is fakeup's distance between tokens
//   --extra     more members of the request's body, as `"ignore_eos":true`
//   --hold      ask once on each connection, print `open` when all have their first chunk, and wait for SIGTERM
//
// It prints `measuring` when the warm-up is over (of streams, when each connection has had its
// first chunk, or a few seconds later), and one JSON
// object when the time is. The figures are of the time between the two; requests that are under way at the end are
// abandoned, and not counted.
//
// An answer is right when its status is 200, its framing complete, its usage there and as many tokens long as asked for;
// a stream must also end in [DONE]. Anything else is an error, and the first one is told.
#define _GNU_SOURCE
#include "clock.h"
#include "files.h"
#include "histogram.h"
#include "http.h"
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
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
  uint64_t asked_at;
} connection;

static struct {
  const char *host, *path, *uds, *model, *extra;
  int port, connections, tokens, is_stream, is_stamped, holds, prompt_bytes;
  long pace_us;
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
static int poller, dialling, dialled, begun, begun_before;
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
  ask(c);
}

static void fail(connection *c, uint64_t *kind, const char *what, const char *bytes, size_t length) {
  count_error(kind, what, bytes, length);
  hang_up(c);
}

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
  if (c->keeps_alive) ask(c);
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

static void receive(connection *c) {
  static char bytes[READ_BYTES];
  ssize_t got = recv(c->fd, bytes, sizeof bytes, 0);
  if (got > 0) feed(c, bytes, (size_t)got);
  else if (got < 0 && errno == EAGAIN) return;
  else if (c->state == IN_BODY && c->framing == BY_CLOSE) finish(c, now_ns());
  else fail(c, &errors.incomplete, "the server hung up", c->text, c->text_length);
}

static void serve_ready(connection *c, uint32_t events) {
  if (c->state == CLOSED) return;
  if (c->state == CONNECTING) {
    connected(c);
    return;
  }
  if (events & EPOLLOUT && c->sent < request_length) {
    send_rest(c);
    if (c->sent == request_length) watch(c, EPOLLIN);
  }
  if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(c);
}

// ---- the run ----

static void turn(void) {
  struct epoll_event ready[READY_AT_ONCE];
  struct timespec wait = {0, POLL_NS};
  dial_more();
  int count = epoll_pwait2(poller, ready, READY_AT_ONCE, &wait, NULL);
  for (int k = 0; k < count; k++) serve_ready(ready[k].data.ptr, ready[k].events);
}

static void run_for(double seconds) {
  uint64_t end = now_ns() + (uint64_t)(seconds * 1e9);
  while (!is_stopping && now_ns() < end) turn();
}

static void warm_up(void) {
  uint64_t latest = now_ns() + MAX_WARMUP_SECONDS * 1000000000ull;
  run_for(asked.warmup_seconds);
  while (asked.is_stream && begun < asked.connections && now_ns() < latest && !is_stopping) turn();
}

static double cpu_seconds(void) {
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void say(const char *word) {
  puts(word);
  fflush(stdout);
}

static void print_results(double seconds, double cpu) {
  printf("{\"seconds\":%.4f,\"begun\":%d,\"requests\":%lu,\"tokens\":%lu,\"events\":%lu,", seconds, begun_before, measured.requests, measured.tokens,
         measured.events);
  print_histogram("latency_us", &measured.latency);
  print_histogram("first_chunk_us", &measured.first_chunk);
  print_histogram("chunk_delay_us", &measured.chunk_delay);
  printf("\"client_cpu_seconds\":%.4f,\"errors\":{\"status\":%lu,\"incomplete\":%lu,\"wrong\":%lu,\"connection\":%lu,"
         "\"first\":\"%s\"}}\n",
         cpu, errors.status, errors.incomplete, errors.wrong, errors.connection, errors.first);
}

static void measure(void) {
  warm_up();
  say("measuring");
  is_measuring = 1;
  begun_before = begun;
  uint64_t began = now_ns();
  double cpu = cpu_seconds();
  run_for(asked.seconds);
  print_results((double)(now_ns() - began) / 1e9, cpu_seconds() - cpu);
}

static void hold(void) {
  while (!is_stopping && begun < asked.connections) turn();
  if (errors.first[0]) die("not all are open", errors.first);
  say("open");
  while (!is_stopping) turn();
}

static void write_request(void) {
  char *prompt = must(malloc((size_t)asked.prompt_bytes + 1)), pace[40] = "", *body;
  for (int k = 0; k < asked.prompt_bytes; k++) prompt[k] = k % 6 == 5 ? ' ' : (char)('a' + k * 7 % 26);
  prompt[asked.prompt_bytes] = 0;
  if (asked.pace_us >= 0) sprintf(pace, ",\"seed\":%ld", asked.pace_us);
  int length = asprintf(&body,
                        "{\"model\":\"%s\",\"messages\":[{\"role\":\"system\",\"content\":\"You are a helpful assistant.\"},"
                        "{\"role\":\"user\",\"content\":\"%s\"}],\"max_tokens\":%d,\"temperature\":0.7%s%s%s%s}",
                        asked.model, prompt, asked.tokens, pace,
                        asked.is_stream ? ",\"stream\":true,\"stream_options\":{\"include_usage\":true}" : "",
                        *asked.extra ? "," : "", asked.extra);
  int total = asprintf(&request,
                       "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: sseload\r\nAccept: */*\r\n"
                       "Content-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s",
                       asked.path, asked.host, asked.headers, length, body);
  if (length < 0 || total < 0) die("memory", strerror(errno));
  request_length = (size_t)total;
  free(prompt);
  free(body);
}

static void set_address(void) {
  if (!asked.uds) {
    address.tcp = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)asked.port)};
    if (!inet_pton(AF_INET, asked.host, &address.tcp.sin_addr)) die("not an address", asked.host);
    address_length = sizeof address.tcp;
    return;
  }
  if (strlen(asked.uds) >= sizeof address.uds.sun_path) die("the socket's path is too long", asked.uds);
  address.uds.sun_family = AF_UNIX;
  strcpy(address.uds.sun_path, asked.uds);
  address_length = sizeof address.uds;
}

static void stop(int number) {
  (void)number;
  is_stopping = 1;
}

static void set_up(void) {
  struct sigaction action = {.sa_handler = stop};
  sigaction(SIGTERM, &action, NULL);
  allow_many_files();
  if ((poller = epoll_create1(0)) < 0) die("epoll", strerror(errno));
  connections = must(calloc((size_t)asked.connections, sizeof *connections));
  for (int k = 0; k < asked.connections; k++) connections[k].text = must(malloc(TEXT_BYTES));
  set_address();
  write_request();
}

static void add_header(const char *line) {
  size_t used = strlen(asked.headers);
  if (used + strlen(line) + 3 > sizeof asked.headers) die("the headers are too long", line);
  sprintf(asked.headers + used, "%s\r\n", line);
}

static int usage(void) {
  fprintf(stderr, "usage: sseload --model NAME (--port PORT | --uds PATH) [options]; its source's head says which\n");
  return 2;
}

int main(int count, char **arguments) {
  static const struct option options[] = {
      {"port", 1, NULL, 'p'},       {"uds", 1, NULL, 'u'},    {"model", 1, NULL, 'm'},       {"connections", 1, NULL, 'c'},
      {"tokens", 1, NULL, 't'},     {"stream", 0, NULL, 's'}, {"stamped", 0, NULL, 'd'},     {"pace-us", 1, NULL, 'i'},
      {"seconds", 1, NULL, 'n'},    {"hold", 0, NULL, 'o'},   {"prompt-bytes", 1, NULL, 'b'}, {"header", 1, NULL, 'h'},
      {"extra", 1, NULL, 'e'},      {"warmup-seconds", 1, NULL, 'w'},                        {NULL, 0, NULL, 0},
  };
  for (int option; (option = getopt_long(count, arguments, "", options, NULL)) != -1;) {
    switch (option) {
      case 'p': asked.port = atoi(optarg); break;
      case 'u': asked.uds = optarg; break;
      case 'm': asked.model = optarg; break;
      case 'c': asked.connections = atoi(optarg); break;
      case 't': asked.tokens = atoi(optarg); break;
      case 's': asked.is_stream = 1; break;
      case 'd': asked.is_stamped = 1; break;
      case 'i': asked.pace_us = atol(optarg); break;
      case 'n': asked.seconds = atof(optarg); break;
      case 'w': asked.warmup_seconds = atof(optarg); break;
      case 'o': asked.holds = 1; break;
      case 'b': asked.prompt_bytes = atoi(optarg); break;
      case 'h': add_header(optarg); break;
      case 'e': asked.extra = optarg; break;
      default: return usage();
    }
  }
  if (!asked.model || (!asked.port && !asked.uds) || asked.connections < 1 || asked.prompt_bytes < 1) return usage();
  set_up();
  if (asked.holds) hold();
  else measure();
  return 0;
}
