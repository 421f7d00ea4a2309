// sseload: asks an OpenAI-compatible server for chat completions, checks every answer, and tells how fast they came.
//
//   sseload --model NAME (--port PORT | --uds PATH) [--connections N] [--tokens N] [--stream] [--stamped]
//           [--pace-us N] [--warmup-seconds S] [--seconds S] [--answers N] [--prompt-bytes N] [--header LINE]…
//           [--extra JSON] [--hold]
//
// Closed loop: each of N connections sends its next request when its last answer is complete. One thread, epoll.
//   --stamped   the server is fakeup: every token brings the time it was made at, and every one must arrive
//   --pace-us   `seed` in the body, which is fakeup's distance between tokens
//   --extra     more members of the request's body, as `"ignore_eos":true`
//   --answers   measure that many on each connection, instead of for a time; the warm-up is one on each, and all begin
//               together when the last has had it
//   --hold      ask once on each connection, print `open` when all have their first chunk, and wait for SIGTERM
//
// It prints `measuring` when the warm-up is over (of streams, when each connection has had its first chunk, or a few
// seconds later), and one JSON object when the time is. The figures are of the time between the two; requests that are
// under way at the end are abandoned, and not counted. With --answers none are: the time ends with the last answer, or with
// the first error.
//
// An answer is right when its status is 200, its framing complete, its usage there and as many tokens long as asked for;
// a stream must also end in [DONE]. Anything else is an error, and the first one is told.
#define _GNU_SOURCE
#include "files.h"
#include "sseload_answer.h"
#include <arpa/inet.h>
#include <getopt.h>
#include <sys/resource.h>

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

// Until every connection has had `times` answers.
static void ask_each(long times) {
  turns = times, resting = 0;
  for (int k = 0; k < asked.connections; k++) {
    connections[k].answered = 0;
    if (connections[k].state == IDLE) ask(&connections[k]);
  }
  while (resting < asked.connections && !errors.first[0] && !is_stopping) turn();
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
  if (asked.answers) ask_each(1);
  else warm_up();
  if (asked.answers && errors.first[0]) die("not all had a first answer", errors.first);
  say("measuring");
  is_measuring = 1;
  begun_before = begun;
  uint64_t began = now_ns();
  double cpu = cpu_seconds();
  if (asked.answers) ask_each(asked.answers);
  else run_for(asked.seconds);
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
      {"extra", 1, NULL, 'e'},      {"warmup-seconds", 1, NULL, 'w'},                        {"answers", 1, NULL, 'a'},
      {NULL, 0, NULL, 0},
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
      case 'a': asked.answers = atol(optarg); break;
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
