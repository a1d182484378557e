#include "loop.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "io.h"

#define ROUND 32

static int poller = -1;
static struct timer *timers;
/* Timers armed by a timer's own callback wait for the next round: events come in between. */
static unsigned timer_round;
static void **garbage;
static size_t garbage_count, garbage_room;

int loop_init(void)
{
	poller = epoll_create1(EPOLL_CLOEXEC);
	return poller < 0 ? -1 : 0;
}

void watch_init(struct watch *watch, int fd, void (*ready)(struct watch *, uint32_t))
{
	*watch = (struct watch){ .fd = fd, .ready = ready };
}

void watch_for(struct watch *watch, uint32_t events)
{
	if (watch->fd < 0 || (watch->added && watch->events == events))
		return;
	struct epoll_event event = { .events = events, .data = { .ptr = watch } };
	int operation = watch->added ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
	if (epoll_ctl(poller, operation, watch->fd, &event) == 0) {
		watch->added = true;
		watch->events = events;
	}
}

void watch_pause(struct watch *watch)
{
	if (watch->fd >= 0 && watch->added)
		epoll_ctl(poller, EPOLL_CTL_DEL, watch->fd, NULL);
	watch->added = false;
}

void watch_close(struct watch *watch)
{
	if (watch->fd < 0)
		return;
	watch_pause(watch);
	close(watch->fd);
	watch->fd = -1;
}

void timer_cancel(struct timer *timer)
{
	if (!timer->armed)
		return;
	for (struct timer **at = &timers; *at != NULL; at = &(*at)->next) {
		if (*at == timer) {
			*at = timer->next;
			break;
		}
	}
	timer->armed = false;
}

void timer_arm(struct timer *timer, int64_t delay_ms)
{
	timer_cancel(timer);
	timer->due_ms = monotonic_ms() + delay_ms;
	timer->armed = true;
	timer->round = timer_round;
	timer->next = timers;
	timers = timer;
}

void free_later(void *memory)
{
	if (garbage_count == garbage_room) {
		garbage_room = garbage_room == 0 ? 16 : garbage_room * 2;
		garbage = realloc(garbage, garbage_room * sizeof *garbage);
		if (garbage == NULL)
			abort();
	}
	garbage[garbage_count++] = memory;
}

static int next_timeout(void)
{
	if (timers == NULL)
		return -1;
	int64_t first = INT64_MAX;
	for (struct timer *timer = timers; timer != NULL; timer = timer->next)
		if (timer->due_ms < first)
			first = timer->due_ms;
	int64_t left = first - monotonic_ms();
	return left <= 0 ? 0 : left > 60000 ? 60000 : (int)left;
}

static void fire_timers(void)
{
	int64_t now = monotonic_ms();
	timer_round++;
	for (;;) {
		struct timer *timer = timers;
		while (timer != NULL && (timer->due_ms > now || timer->round == timer_round))
			timer = timer->next;
		if (timer == NULL)
			return;
		timer_cancel(timer);
		timer->fire(timer);
	}
}

static void collect(void)
{
	while (garbage_count > 0)
		free(garbage[--garbage_count]);
	free(garbage);
	garbage = NULL;
	garbage_room = 0;
}

void loop_run(const bool *done)
{
	struct epoll_event events[ROUND];
	while (!*done) {
		int count = epoll_wait(poller, events, ROUND, next_timeout());
		if (count < 0 && errno != EINTR)
			abort();
		for (int i = 0; i < count && !*done; i++) {
			struct watch *watch = events[i].data.ptr;
			if (watch->fd >= 0 && watch->added)
				watch->ready(watch, events[i].events);
		}
		fire_timers();
		if (garbage_count > 0)
			collect();
	}
}
