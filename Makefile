# SPDX-License-Identifier: GPL-2.0-only
# dm-qcow: `make help` lists the targets. Userspace is built below from the
# folders by wildcard, so that a new file needs no edit here; the module is
# built by the kernel's own Kbuild; everything with a VM is under tests/vm.

SHELL   := /bin/bash
KERNEL  ?= 6.12
KDIR    ?= /lib/modules/$(shell uname -r)/build
PREFIX  ?= /usr/local
BUILD   ?= build
VERSION := 0.1.0

PKGS    := libmnl libdeflate zlib libzstd json-c libseccomp blkid devmapper
CFLAGS  ?= -O2 -g
WARN    := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes
CPPFLAGS += -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -Iuserspace -Iinclude/uapi \
	    -DQCOW_VERSION='"$(VERSION)"' -DHAVE_LIBDEFLATE -MMD -MP
SAN     := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
PKG_CFLAGS = $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
PKG_LIBS   = $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lpthread

# $(1): object folder, $(2): source folder
objs = $(patsubst userspace/%.c,$(BUILD)/$(1)/%.o,$(wildcard userspace/$(2)/*.c))
ROOMS := lib host netlink

# ---- tools -----------------------------------------------------------------
.PHONY: all tools module clean help
all: tools
	@if [ -d "$(KDIR)" ]; then $(MAKE) --no-print-directory module; \
	else echo "no headers for the running kernel ($(KDIR)): module not built; use make module KDIR=..."; fi

tools: $(BUILD)/qcow $(BUILD)/qcowd

$(BUILD)/obj/%.o: userspace/%.c
	@mkdir -p $(@D)
	$(CC) -std=c11 $(WARN) $(CFLAGS) $(CPPFLAGS) $(PKG_CFLAGS) -c -o $@ $<

$(BUILD)/san/%.o: userspace/%.c
	@mkdir -p $(@D)
	$(CC) -std=c11 $(WARN) -O1 -g $(SAN) $(CPPFLAGS) $(PKG_CFLAGS) -c -o $@ $<

COMMON_OBJS = $(foreach r,$(ROOMS),$(call objs,obj,$(r)))
# Unit tests reach into the daemon and the tools too: all but their main().
SAN_OBJS    = $(foreach r,$(ROOMS),$(call objs,san,$(r))) \
	      $(filter-out %/main.o,$(call objs,san,daemon) $(call objs,san,tools))

$(BUILD)/libcommon.a: $(COMMON_OBJS)
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/libcommon-san.a: $(SAN_OBJS)
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/qcow: $(call objs,obj,tools) $(BUILD)/libcommon.a
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)

$(BUILD)/qcowd: $(call objs,obj,daemon) $(BUILD)/libcommon.a
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)

# ---- module ----------------------------------------------------------------
module:
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules

# ---- unit tests (ASan and UBSan) ---------------------------------------------
UNIT := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(wildcard tests/unit/test_*.c))
UNIT_HELP := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%.o,$(filter-out $(wildcard tests/unit/test_*.c),$(wildcard tests/unit/*.c)))

$(BUILD)/tests/unit/%.o: tests/unit/%.c
	@mkdir -p $(@D)
	$(CC) -std=c11 $(WARN) -O1 -g $(SAN) $(CPPFLAGS) -Itests/unit $(PKG_CFLAGS) -c -o $@ $<

$(UNIT): $(BUILD)/tests/unit/%: $(BUILD)/tests/unit/%.o $(UNIT_HELP) $(BUILD)/libcommon-san.a
	$(CC) $(SAN) -o $@ $^ $(PKG_LIBS) -lcmocka

.PHONY: unit
unit: $(UNIT)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

clean:
	rm -rf $(BUILD)
