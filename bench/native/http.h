// http.h: finding things in an HTTP/1.1 head and in a flat JSON body. Nothing is copied or kept.
#ifndef HTTP_H
#define HTTP_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

// The value of header `name` in the head's lines [begin, end), or NULL.
static inline const char *find_header(const char *begin, const char *end, const char *name) {
  size_t length = strlen(name);
  for (const char *line = begin; line < end;) {
    const char *next = memchr(line, '\n', (size_t)(end - line));
    if (!next) break;
    if ((size_t)(next - line) > length && line[length] == ':' && !strncasecmp(line, name, length)) {
      const char *value = line + length + 1;
      while (*value == ' ') value++;
      return value;
    }
    line = next + 1;
  }
  return NULL;
}

// What follows `"key":` in [begin, end), or NULL. The key must not occur inside a string of the body.
static inline const char *find_value(const char *begin, const char *end, const char *key) {
  const char *at = memmem(begin, (size_t)(end - begin), key, strlen(key));
  if (!at) return NULL;
  at += strlen(key);
  while (at < end && (*at == ' ' || *at == ':')) at++;
  return at < end ? at : NULL;
}

static inline long find_number(const char *begin, const char *end, const char *key, long otherwise) {
  const char *value = find_value(begin, end, key);
  return value && *value >= '0' && *value <= '9' ? strtol(value, NULL, 10) : otherwise;
}

static inline int find_true(const char *begin, const char *end, const char *key) {
  const char *value = find_value(begin, end, key);
  return value && end - value >= 4 && !memcmp(value, "true", 4);
}

#endif
