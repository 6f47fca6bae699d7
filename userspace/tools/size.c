// SPDX-License-Identifier: GPL-2.0-only
#include "tools/size.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

int size_parse(const char *text, uint64_t *bytes)
{
	static const char units[] = "KMGTPE";
	unsigned long long n;
	const char *unit;
	char *end;
	int shift;

	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno)
		return -errno;
	*bytes = n;
	if (!*end || !strcasecmp(end, "B"))
		return 0;
	unit = strchr(units, toupper((unsigned char)*end));
	if (!unit || (end[1] && strcasecmp(end + 1, "B") && strcasecmp(end + 1, "iB")))
		return -EINVAL;
	shift = 10 * (int)(unit - units + 1);
	if (n > UINT64_MAX >> shift)
		return -ERANGE;
	*bytes = n << shift;
	return 0;
}

int size_parse_power(const char *text, uint32_t *bits)
{
	uint64_t n;
	int r = size_parse(text, &n);

	if (r < 0 || !n || n & (n - 1))
		return -EINVAL;
	*bits = (uint32_t)__builtin_ctzll(n);
	return 0;
}
