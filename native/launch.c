#include "shim.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cgroup.h"
#include "io.h"

/* Parses a LAUNCH frame. It comes from the daemon over a socket that only root can reach, and is checked all the same. */

static bool refuse(struct failure *failure, const char *what)
{
	failure->number = EINVAL;
	failure->stage = "launch";
	snprintf(failure->text, sizeof failure->text, "%s", what);
	return false;
}

static bool append(struct text_list *list, size_t most, char *text)
{
	if (list->count == most) {
		free(text);
		return false;
	}
	list->items = realloc(list->items, (list->count + 1) * sizeof *list->items);
	if (list->items == NULL)
		abort();
	list->items[list->count++] = text;
	return true;
}

static char **text_place(struct launch *launch, uint8_t tag)
{
	switch (tag) {
	case TAG_ID:
		return &launch->id;
	case TAG_RUN_DIR:
		return &launch->run_dir;
	case TAG_STATE_DIR:
		return &launch->state_dir;
	case TAG_UPPER_DIR:
		return &launch->upper_dir;
	case TAG_WORK_DIR:
		return &launch->work_dir;
	case TAG_RUNTIME_PATH:
		return &launch->runtime_path;
	case TAG_RUNTIME_ROOT:
		return &launch->runtime_root;
	case TAG_LOG_PATH:
		return &launch->log_path;
	case TAG_LOG_ATTRS:
		return &launch->log_attrs;
	case TAG_CGROUP_PATH:
		return &launch->cgroup_path;
	default:
		return NULL;
	}
}

static uint64_t *number_place(struct launch *launch, uint8_t tag)
{
	switch (tag) {
	case TAG_VERSION:
		return &launch->version;
	case TAG_FLAGS:
		return &launch->flags;
	case TAG_LOG_BYTES_MAX:
		return &launch->log_bytes_max;
	case TAG_LOG_FILES_MAX:
		return &launch->log_files_max;
	case TAG_OOM_SCORE:
		launch->has_oom_score = true;
		return (uint64_t *)&launch->oom_score;
	default:
		return NULL;
	}
}

static bool take_field(struct launch *launch, const struct field *field)
{
	uint64_t *number = number_place(launch, field->tag);
	if (number != NULL)
		return field_number(field, number);
	struct text_list *list = field->tag == TAG_LOWER_DIR	    ? &launch->lower_dirs :
				 field->tag == TAG_PORT		    ? &launch->ports :
				 field->tag == TAG_RUNTIME_ARGUMENT ? &launch->runtime_arguments :
				 field->tag == TAG_BIND_SOURCE	    ? &launch->bind_sources :
				 field->tag == TAG_BIND_TARGET	    ? &launch->bind_targets :
								      NULL;
	char **place = text_place(launch, field->tag);
	if (list == NULL && place == NULL)
		return true;
	char *text = field_text(field);
	if (text == NULL)
		return false;
	if (list != NULL)
		return append(list, field->tag == TAG_LOWER_DIR ? LOWER_DIRS_MAX : PORTS_MAX, text);
	free(*place);
	*place = text;
	return true;
}

bool launch_parse(struct launch *launch, const uint8_t *fields, size_t length, struct failure *failure)
{
	struct field_reader reader = { fields, fields + length };
	struct field field;
	int more;
	memset(launch, 0, sizeof *launch);
	while ((more = next_field(&reader, &field)) > 0)
		if (!take_field(launch, &field))
			return refuse(failure, "a field of the launch frame is malformed");
	if (more < 0 || launch->version == 0)
		return refuse(failure, "the launch frame is malformed");
	const char *const absolute[] = { launch->run_dir, launch->state_dir, launch->upper_dir, launch->runtime_path,
					 launch->runtime_root };
	for (size_t i = 0; i < array_length(absolute); i++)
		if (absolute[i] == NULL || absolute[i][0] != '/')
			return refuse(failure, "the launch frame lacks an absolute path");
	if (launch->id == NULL || launch->id[0] == 0 || strchr(launch->id, '/') != NULL || launch->id[0] == '.')
		return refuse(failure, "the launch frame lacks an id");
	if (launch->lower_dirs.count > 0 && launch->work_dir == NULL)
		return refuse(failure, "the launch frame lacks a work directory");
	if (launch->bind_sources.count != launch->bind_targets.count)
		return refuse(failure, "the launch frame names binds without a place");
	if ((launch->flags & LAUNCH_LOG_JSON) != 0 && launch->log_path == NULL)
		return refuse(failure, "the launch frame lacks a log path");
	if (launch->cgroup_path == NULL || !cgroup_path_valid(launch->cgroup_path))
		return refuse(failure, "the cgroup path is not one");
	return true;
}
