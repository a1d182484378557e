#include "io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int64_t monotonic_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

uint64_t realtime_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

size_t format_time(uint64_t ns, char *out)
{
	time_t seconds = (time_t)(ns / 1000000000u);
	struct tm parts;
	gmtime_r(&seconds, &parts);
	size_t length = strftime(out, 24, "%Y-%m-%dT%H:%M:%S", &parts);
	char fraction[12];
	int digits = snprintf(fraction, sizeof fraction, "%09u", (unsigned)(ns % 1000000000u));
	while (digits > 0 && fraction[digits - 1] == '0')
		digits--;
	if (digits > 0) {
		out[length++] = '.';
		memcpy(out + length, fraction, (size_t)digits);
		length += (size_t)digits;
	}
	out[length++] = 'Z';
	out[length] = 0;
	return length;
}

int set_nonblocking(int fd, bool on)
{
	int flags = fcntl(fd, F_GETFL);
	if (flags < 0)
		return -1;
	return fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
}

int write_full(int fd, const void *data, size_t length)
{
	const uint8_t *at = data;
	while (length > 0) {
		ssize_t n = write(fd, at, length);
		if (n < 0) {
			if (errno == EINTR)
				continue;
			return -1;
		}
		at += n;
		length -= (size_t)n;
	}
	return 0;
}

int read_full(int fd, void *data, size_t length)
{
	uint8_t *at = data;
	while (length > 0) {
		ssize_t n = read(fd, at, length);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		at += n;
		length -= (size_t)n;
	}
	return 0;
}

ssize_t read_small_file(int dir, const char *path, char *out, size_t size)
{
	int fd = openat(dir, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return -1;
	size_t used = 0;
	while (used < size - 1) {
		ssize_t n = read(fd, out + used, size - 1 - used);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		used += (size_t)n;
	}
	out[used] = 0;
	close(fd);
	return (ssize_t)used;
}

int write_existing_file(int dir, const char *path, const char *text)
{
	int fd = openat(dir, path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return -1;
	ssize_t n;
	do
		n = write(fd, text, strlen(text));
	while (n < 0 && errno == EINTR);
	int failed = errno;
	close(fd);
	errno = failed;
	return n < 0 ? -1 : 0;
}

void close_from(int first)
{
#ifdef SYS_close_range
	if (syscall(SYS_close_range, (unsigned)first, ~0u, 0u) == 0)
		return;
#endif
	int limit = (int)sysconf(_SC_OPEN_MAX);
	for (int fd = first; fd < limit; fd++)
		close(fd);
}

void reset_signals(void)
{
	struct sigaction action = { .sa_handler = SIG_DFL };
	for (int number = 1; number < 65; number++)
		sigaction(number, &action, NULL);
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

int make_directories(const char *path, mode_t mode)
{
	char part[4096];
	size_t length = strlen(path);
	if (length >= sizeof part) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(part, path, length + 1);
	for (size_t i = 1; i < length; i++) {
		if (part[i] != '/')
			continue;
		part[i] = 0;
		if (mkdir(part, mode) < 0 && errno != EEXIST)
			return -1;
		part[i] = '/';
	}
	return mkdir(part, mode) < 0 && errno != EEXIST ? -1 : 0;
}

static void remove_level(int dir, const char *name, int depth, dev_t device)
{
	if (unlinkat(dir, name, 0) == 0 || errno == ENOENT || depth == 0)
		return;
	int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return;
	struct stat info;
	DIR *listing;
	if (fstat(fd, &info) < 0 || (device != 0 && info.st_dev != device) || (listing = fdopendir(fd)) == NULL) {
		close(fd);
		return;
	}
	struct dirent *entry;
	while ((entry = readdir(listing)) != NULL)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			remove_level(fd, entry->d_name, depth - 1, info.st_dev);
	closedir(listing);
	unlinkat(dir, name, AT_REMOVEDIR);
}

void remove_tree_at(int dir, const char *name)
{
	remove_level(dir, name, 16, 0);
}

void *must_allocate(size_t size)
{
	void *memory = calloc(1, size > 0 ? size : 1);
	if (memory == NULL)
		abort();
	return memory;
}

char *must_copy(const char *text)
{
	size_t size = strlen(text) + 1;
	char *copy = must_allocate(size);
	memcpy(copy, text, size);
	return copy;
}
