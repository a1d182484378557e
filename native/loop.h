#ifndef SKIFF_LOOP_H
#define SKIFF_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

/* One thread, one epoll descriptor. A watch is embedded in what it belongs to; `fd` is -1 when it is not in use. */
struct watch {
	int fd;
	uint32_t events;
	bool added;
	void (*ready)(struct watch *watch, uint32_t events);
};

struct timer {
	int64_t due_ms;
	bool armed;
	unsigned round;
	void (*fire)(struct timer *timer);
	struct timer *next;
};

int loop_init(void);

void watch_init(struct watch *watch, int fd, void (*ready)(struct watch *, uint32_t));

/* Waits for these events; with 0 the descriptor stays registered and only errors and hang-ups are reported. */
void watch_for(struct watch *watch, uint32_t events);

/* Takes the descriptor out: nothing at all is reported until the next `watch_for`. */
void watch_pause(struct watch *watch);

/* Takes it out and closes it. */
void watch_close(struct watch *watch);

void timer_arm(struct timer *timer, int64_t delay_ms);
void timer_cancel(struct timer *timer);

/* Frees after the present round of events, in which a stale event may still point to it. */
void free_later(void *memory);

void loop_run(const bool *done);

#endif
