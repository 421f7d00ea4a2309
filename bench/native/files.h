// files.h: as many open files as the system allows this process; a connection is one.
#ifndef FILES_H
#define FILES_H

#include <sys/resource.h>

static inline void allow_many_files(void) {
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files)) return;
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
}

#endif
