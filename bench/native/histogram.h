// histogram.h: durations in nanoseconds, kept to about 1.6 % by a logarithm with 64 linear steps to each octave.
#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>

enum { STEP_BITS = 6, STEPS = 1 << STEP_BITS, BUCKETS = 64 * STEPS };

typedef struct {
  uint64_t buckets[BUCKETS], count, sum, max;
} histogram;

static inline int bucket_of(uint64_t value) {
  if (value < STEPS) return (int)value;
  int octave = 63 - __builtin_clzll(value);
  return ((octave - STEP_BITS + 1) << STEP_BITS) + (int)((value >> (octave - STEP_BITS)) & (STEPS - 1));
}

static inline double middle_of(int bucket) {
  if (bucket < STEPS) return bucket;
  int shift = (bucket >> STEP_BITS) - 1;
  return ((double)(STEPS + (bucket & (STEPS - 1))) + 0.5) * (double)(1ull << shift);
}

static inline void record(histogram *h, uint64_t value) {
  h->buckets[bucket_of(value)]++;
  h->count++;
  h->sum += value;
  if (value > h->max) h->max = value;
}

static inline double quantile(const histogram *h, double share) {
  double wanted = share * (double)h->count;
  uint64_t seen = 0;
  for (int bucket = 0; bucket < BUCKETS; bucket++) {
    seen += h->buckets[bucket];
    if (seen && (double)seen >= wanted) return middle_of(bucket);
  }
  return 0;
}

// As JSON, in microseconds; null when nothing was recorded.
static inline void print_histogram(const char *name, const histogram *h) {
  printf("\"%s\":", name);
  if (!h->count) {
    printf("null,");
    return;
  }
  printf("{\"count\":%lu,\"mean\":%.1f,\"p50\":%.1f,\"p99\":%.1f,\"max\":%.1f},", h->count,
         (double)h->sum / (double)h->count / 1e3, quantile(h, .5) / 1e3, quantile(h, .99) / 1e3, (double)h->max / 1e3);
}

#endif
