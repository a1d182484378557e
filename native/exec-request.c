#include "exec-child.h"

#include <stdlib.h>
#include <string.h>

#include "frame.h"
#include "io.h"

/* Parses an OPEN_EXEC frame into what the exec's child needs. */

static void add_text(char ***list, size_t *count, char *text)
{
	*list = realloc(*list, (*count + 2) * sizeof **list);
	if (*list == NULL)
		abort();
	(*list)[(*count)++] = text;
	(*list)[*count] = NULL;
}

static uint64_t *number_place(struct exec_request *request, uint8_t tag)
{
	switch (tag) {
	case TAG_UID:
		return &request->uid;
	case TAG_GID:
		return &request->gid;
	case TAG_FLAGS:
		return &request->flags;
	case TAG_CAP_BOUNDING:
		return &request->bounding;
	case TAG_CAP_EFFECTIVE:
		return &request->effective;
	case TAG_CAP_PERMITTED:
		return &request->permitted;
	case TAG_CAP_INHERITABLE:
		return &request->inheritable;
	case TAG_CAP_AMBIENT:
		return &request->ambient;
	case TAG_ROWS:
		return &request->rows;
	case TAG_COLUMNS:
		return &request->columns;
	default:
		return NULL;
	}
}

static bool take_field(struct exec_request *request, const struct field *field)
{
	uint64_t *number = number_place(request, field->tag), value;
	if (number != NULL)
		return field_number(field, number);
	if (field->tag == TAG_EXTRA_GID) {
		if (!field_number(field, &value) || request->group_count == 65536)
			return false;
		request->groups = realloc(request->groups, (request->group_count + 1) * sizeof *request->groups);
		if (request->groups == NULL)
			abort();
		request->groups[request->group_count++] = (gid_t)value;
		return true;
	}
	if (field->tag != TAG_ID && field->tag != TAG_ARGUMENT && field->tag != TAG_ENVIRONMENT &&
	    field->tag != TAG_CWD && field->tag != TAG_SECCOMP_PATH && field->tag != TAG_APPARMOR)
		return true;
	char *text = field_text(field);
	if (text == NULL)
		return false;
	if (field->tag == TAG_ARGUMENT) {
		add_text(&request->arguments, &request->argument_count, text);
	} else if (field->tag == TAG_ENVIRONMENT) {
		add_text(&request->environment, &request->environment_count, text);
	} else {
		char **place = field->tag == TAG_ID	      ? &request->id :
			       field->tag == TAG_CWD	      ? &request->cwd :
			       field->tag == TAG_SECCOMP_PATH ? &request->seccomp_path :
								&request->apparmor;
		free(*place);
		*place = text;
	}
	return true;
}

bool exec_request_parse(struct exec_request *request, const uint8_t *fields, size_t length)
{
	struct field_reader reader = { fields, fields + length };
	struct field field;
	int more;
	while ((more = next_field(&reader, &field)) > 0)
		if (!take_field(request, &field))
			return false;
	if (request->environment == NULL)
		request->environment = must_allocate(sizeof(char *));
	return more == 0 && request->id != NULL && request->argument_count > 0 && request->cwd != NULL;
}

static void free_list(char **list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(list[i]);
	free(list);
}

void exec_request_release(struct exec_request *request)
{
	free_list(request->arguments, request->argument_count);
	free_list(request->environment, request->environment_count);
	free(request->groups);
	free(request->cwd);
	free(request->seccomp_path);
	free(request->apparmor);
	free(request->id);
}
