// SPDX-License-Identifier: GPL-2.0-only
#include "tools/size.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* The digits behind a point, as so many of 10^@digits; those beyond 18 are too small to count. */
static uint64_t parse_fraction(const char **at, int *digits)
{
	uint64_t n = 0;

	*digits = 0;
	for (; isdigit((unsigned char)**at); ++*at) {
		if (*digits == 18)
			continue;
		n = n * 10 + (uint64_t)(**at - '0');
		++*digits;
	}
	return n;
}

/* Of a unit: log2. -EINVAL: there is no such. */
static int parse_unit(const char *text)
{
	static const char units[] = "KMGTPE";
	const char *unit;

	if (!*text || !strcasecmp(text, "B"))
		return 0;
	unit = strchr(units, toupper((unsigned char)*text));
	if (!unit || (text[1] && strcasecmp(text + 1, "B") && strcasecmp(text + 1, "iB")))
		return -EINVAL;
	return 10 * (int)(unit - units + 1);
}

int size_parse(const char *text, uint64_t *bytes)
{
	unsigned long long n;
	unsigned __int128 fraction = 0;
	int digits = 0, shift;
	const char *unit;
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno)
		return -errno;
	unit = end;
	if (*unit == '.') {
		unit++;
		fraction = parse_fraction(&unit, &digits);
	}
	shift = parse_unit(unit);
	/* There are no parts of a byte. */
	if (shift < 0 || (unit != end && !shift))
		return -EINVAL;
	if (n > UINT64_MAX >> shift)
		return -ERANGE;
	for (fraction <<= shift; digits; digits--)
		fraction /= 10;
	*bytes = (n << shift) + (uint64_t)fraction;
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
