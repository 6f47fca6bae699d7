// SPDX-License-Identifier: GPL-2.0-only
/* libFuzzer's entry; built once for each target, which FUZZ_ONE names. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return FUZZ_ONE(data, size);
}
