#ifndef SKIFF_IO_H
#define SKIFF_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define array_length(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(pointer, type, member) ((type *)(void *)((char *)(pointer) - offsetof(type, member)))

int64_t monotonic_ms(void);
uint64_t realtime_ns(void);

/* RFC 3339 in UTC with the fraction's trailing zeros cut, as Go's RFC3339Nano; `out` takes 40 bytes. Returns its length. */
size_t format_time(uint64_t ns, char *out);

int set_nonblocking(int fd, bool on);

/* All of it or -1; for files and blocking sockets. */
int write_full(int fd, const void *data, size_t length);

/* Exactly `length` bytes from a blocking descriptor: 0, or -1 at its end or on an error. */
int read_full(int fd, void *data, size_t length);

/* Reads a small file whole and ends it with a NUL; -1 when it cannot be opened. What exceeds `size - 1` is cut. */
ssize_t read_small_file(int dir, const char *path, char *out, size_t size);

/* Writes a text to an existing file (of proc or a cgroup). 0 or -1 with errno. */
int write_existing_file(int dir, const char *path, const char *text);

/* Closes every descriptor from `first` on. */
void close_from(int first);

/* Default dispositions and an empty mask: for a child before it runs another program. */
void reset_signals(void);

/* `mkdir -p` of the absolute path; the last part included. */
int make_directories(const char *path, mode_t mode);

/* Removes a small tree without following links or leaving its file system; at most 16 levels deep. */
void remove_tree_at(int dir, const char *name);

/* malloc that ends the process when there is no memory: a shim's own needs are a few kilobytes. */
void *must_allocate(size_t size);
char *must_copy(const char *text);

#endif
