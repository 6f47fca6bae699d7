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

# What a failed command has begun must not pass for made.
.DELETE_ON_ERROR:

# ---- manual pages, and what --help says, which is made of them ------------------
PAGES := $(patsubst userspace/man/%,$(BUILD)/man/%,$(wildcard userspace/man/*.8))

# The pages share paragraphs by .so, which man would look for among all pages.
$(BUILD)/man/%.8: userspace/man/%.8 $(wildcard userspace/man/*.roff)
	@mkdir -p $(@D)
	awk '$$1 == ".so" { while ((r = (getline line < ("userspace/man/" $$2))) > 0) print line; if (r < 0) exit 1; next } 1' $< >$@

$(BUILD)/man/help.c: userspace/man/help.awk $(PAGES)
	awk -f $^ >$@

# ---- tools -----------------------------------------------------------------
.PHONY: all tools module clean help
all: tools
	@if [ -d "$(KDIR)" ]; then $(MAKE) --no-print-directory module; \
	else echo "no headers for the running kernel ($(KDIR)): module not built; use make module KDIR=..."; fi

tools: $(BUILD)/qcow $(BUILD)/qcowd $(PAGES)

$(BUILD)/obj/%.o: userspace/%.c
	@mkdir -p $(@D)
	$(CC) -std=c11 $(WARN) $(CFLAGS) $(CPPFLAGS) $(PKG_CFLAGS) -c -o $@ $<

$(BUILD)/obj/help.o: $(BUILD)/man/help.c
	@mkdir -p $(@D)
	$(CC) -std=c11 $(WARN) $(CFLAGS) $(CPPFLAGS) -c -o $@ $<

$(BUILD)/san/%.o: userspace/%.c
	@mkdir -p $(@D)
	$(CC) -std=c11 $(WARN) -O1 -g $(SAN) $(CPPFLAGS) $(PKG_CFLAGS) -c -o $@ $<

COMMON_OBJS = $(foreach r,$(ROOMS),$(call objs,obj,$(r))) $(BUILD)/obj/help.o
# Unit tests reach into the daemon and the tools too: all but their main().
SAN_OBJS    = $(foreach r,$(ROOMS),$(call objs,san,$(r))) $(BUILD)/obj/help.o \
	      $(filter-out %/main.o,$(call objs,san,daemon) $(call objs,san,tools))

$(BUILD)/libcommon.a: $(COMMON_OBJS)
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
# Everything but the mains, so that a test can reach what a room keeps to itself.
SAN_TEST_OBJS = $(filter-out %/main.o,$(call objs,san,daemon) $(call objs,san,tools)) $(SAN_OBJS)
UNIT      := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(wildcard tests/unit/test_*.c))
UNIT_HELP := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%.o,\
	$(filter-out $(wildcard tests/unit/test_*.c),$(wildcard tests/unit/*.c)))

# The fuzz targets' bodies: test_regress replays what they once found.
FUZZ_SRC  := $(filter-out tests/fuzz/main.c,$(wildcard tests/fuzz/*.c))
UNIT_HELP += $(patsubst tests/fuzz/%.c,$(BUILD)/tests/unit/fuzz-%.o,$(FUZZ_SRC))

$(BUILD)/tests/unit/fuzz-%.o: tests/fuzz/%.c
	@mkdir -p $(@D)
	$(CC) -std=c11 $(WARN) -O1 -g $(SAN) $(CPPFLAGS) $(PKG_CFLAGS) -c -o $@ $<

$(BUILD)/libtest-san.a: $(SAN_TEST_OBJS) $(UNIT_HELP)
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/tests/unit/%.o: tests/unit/%.c
	@mkdir -p $(@D)
	$(CC) -std=c11 $(WARN) -O1 -g $(SAN) $(CPPFLAGS) -Itests/unit $(PKG_CFLAGS) -c -o $@ $<

$(UNIT): $(BUILD)/tests/unit/%: $(BUILD)/tests/unit/%.o $(BUILD)/libtest-san.a
	$(CC) $(SAN) -o $@ $^ $(PKG_LIBS) -lcmocka

# Programs that integration tests run in the VM.
GUEST := $(patsubst tests/integration/%.c,$(BUILD)/tests/integration/%,$(wildcard tests/integration/*.c))

GUEST += $(patsubst tests/crash/%.c,$(BUILD)/tests/integration/%,$(wildcard tests/crash/*.c))

$(BUILD)/tests/integration/%: tests/crash/%.c
	@mkdir -p $(@D)
	$(CC) -std=c11 $(WARN) $(CFLAGS) $(CPPFLAGS) -o $@ $< -lpthread

$(BUILD)/tests/integration/%: tests/integration/%.c
	@mkdir -p $(@D)
	$(CC) -std=c11 $(WARN) $(CFLAGS) $(CPPFLAGS) -o $@ $< -lpthread

.PHONY: unit guest-programs
unit: $(UNIT)
guest-programs: $(GUEST) hostile

# Reads hostile images: plain, to be held to limits, and with sanitizers.
HOSTILE := $(BUILD)/tests/hostile/reader $(BUILD)/tests/hostile/reader-san $(BUILD)/tests/hostile/qcow-san

$(BUILD)/tests/hostile/reader: tests/hostile/reader.c $(BUILD)/libcommon.a
	@mkdir -p $(@D)
	$(CC) -std=c11 $(WARN) $(CFLAGS) $(CPPFLAGS) $(PKG_CFLAGS) $(LDFLAGS) -o $@ $(filter-out %.h,$^) $(PKG_LIBS)

$(BUILD)/libcommon-san.a: $(foreach r,$(ROOMS),$(call objs,san,$(r))) $(BUILD)/obj/help.o
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/tests/hostile/reader-san: tests/hostile/reader.c $(BUILD)/libcommon-san.a
	@mkdir -p $(@D)
	$(CC) -std=c11 $(WARN) -O1 -g $(SAN) $(CPPFLAGS) $(PKG_CFLAGS) -o $@ $(filter-out %.h,$^) $(PKG_LIBS)

$(BUILD)/tests/hostile/qcow-san: $(call objs,san,tools) $(BUILD)/libcommon-san.a
	@mkdir -p $(@D)
	$(CC) $(SAN) -o $@ $^ $(PKG_LIBS)

.PHONY: hostile
hostile: tools $(HOSTILE)

# ---- fuzzing (clang) -----------------------------------------------------------
FUZZ_SECONDS ?= 60
FUZZ_FLAGS   := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
FUZZ_TARGETS := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(filter-out tests/fuzz/fuzzio.c,$(FUZZ_SRC)))
FUZZ_OBJS     = $(foreach r,$(ROOMS),$(call objs,fuzz/obj,$(r))) \
	      $(filter-out %/main.o,$(call objs,fuzz/obj,daemon)) $(BUILD)/fuzz/fuzzio.o

$(BUILD)/fuzz/obj/%.o: userspace/%.c
	@mkdir -p $(@D)
	clang -std=c11 $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link $(CPPFLAGS) $(PKG_CFLAGS) -c -o $@ $<

$(BUILD)/fuzz/%.o: tests/fuzz/%.c
	@mkdir -p $(@D)
	clang -std=c11 $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link $(CPPFLAGS) $(PKG_CFLAGS) -c -o $@ $<

$(BUILD)/fuzz/libcommon.a: $(FUZZ_OBJS)
	@rm -f $@
	$(AR) rcs $@ $^

$(FUZZ_TARGETS): $(BUILD)/fuzz/%: $(BUILD)/fuzz/%.o tests/fuzz/main.c $(BUILD)/fuzz/libcommon.a
	clang -std=c11 $(FUZZ_FLAGS) -fsanitize=fuzzer $(CPPFLAGS) -DFUZZ_ONE=fuzz_$* -o $@ $(filter-out %.h,$^) $(PKG_LIBS)

.PHONY: fuzz-targets
fuzz-targets: $(FUZZ_TARGETS)

fuzz: fuzz-targets
	BUILD=$(BUILD) tests/fuzz/run --seconds $(FUZZ_SECONDS)

# ---- checks ------------------------------------------------------------------
.PHONY: deps check check-unit check-tools check-hostile check-model check-vm check-debug check-full lint fuzz bench demo
deps:
	scripts/deps all

demo:
	scripts/demo

BUILD_ALL = $(MAKE) --no-print-directory -s -j$(shell nproc) tools unit guest-programs

check:
	@echo 'about 45 minutes at first (kernels and the guest are fetched and built), 35 to 40 later'
	scripts/deps all
	scripts/lint
	$(BUILD_ALL)
	tests/run --level check

check-unit: tools unit
	tests/run --unit

check-hostile:
	tests/hostile/run --level check

check-tools:
	tests/tools/run --level check

check-model:
	docs/model/check

check-vm: tools guest-programs
	tests/run --kernel $(KERNEL) --level check --no-unit

check-debug: tools guest-programs
	tests/run --kernel debug --level check --no-unit

check-full:
	@echo 'many hours; when it is stopped and called again, it goes on with what has not passed yet'
	scripts/deps all
	scripts/lint
	$(BUILD_ALL)
	tests/run --level full --all-kernels --continue

lint:
	scripts/lint

bench: tools
	tests/bench/run

# ---- install -----------------------------------------------------------------
DESTDIR ?=
SBIN    = $(DESTDIR)$(PREFIX)/sbin
MAN     = $(DESTDIR)$(PREFIX)/share/man
UNITS   = $(DESTDIR)/etc/systemd/system
BASH_COMPLETION = $(DESTDIR)$(PREFIX)/share/bash-completion/completions
ZSH_COMPLETION  = $(DESTDIR)$(PREFIX)/share/zsh/site-functions
DKMS    = $(DESTDIR)/usr/src/dm-qcow-$(VERSION)

.PHONY: install install-tools install-dkms uninstall
install: install-tools install-dkms

install-tools: tools
	install -D -m 755 -t $(SBIN) $(BUILD)/qcow $(BUILD)/qcowd
	for page in $(PAGES); do \
		install -D -m 644 -t $(MAN)/man$${page##*.} $$page || exit; done
	install -D -m 644 userspace/completion/qcow.bash $(BASH_COMPLETION)/qcow
	install -D -m 644 userspace/completion/_qcow $(ZSH_COMPLETION)/_qcow
	mkdir -p $(UNITS)
	sed 's,@SBIN@,$(PREFIX)/sbin,' userspace/systemd/qcowd.service >$(UNITS)/qcowd.service
	[ -n "$(DESTDIR)" ] || [ ! -d /run/systemd/system ] || systemctl daemon-reload

install-dkms:
	install -D -m 644 -t $(DKMS) Kbuild dkms.conf COPYING
	install -D -m 644 -t $(DKMS)/kernel kernel/*.[ch]
	install -D -m 644 -t $(DKMS)/include/uapi/linux include/uapi/linux/*.h
	[ -n "$(DESTDIR)" ] || ! command -v dkms >/dev/null || \
		{ dkms add dm-qcow/$(VERSION) || true; dkms install --force dm-qcow/$(VERSION); }

uninstall:
	[ -n "$(DESTDIR)" ] || ! command -v dkms >/dev/null || dkms remove dm-qcow/$(VERSION) --all || true
	rm -rf $(DKMS)
	rm -f $(BASH_COMPLETION)/qcow $(ZSH_COMPLETION)/_qcow
	rm -f $(SBIN)/qcow $(SBIN)/qcowd $(UNITS)/qcowd.service
	for page in $(PAGES); do rm -f $(MAN)/man$${page##*.}/$${page##*/}; done

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

clean:
	rm -rf $(BUILD)
	[ ! -d "$(KDIR)" ] || $(MAKE) -C $(KDIR) M=$(CURDIR) clean

help:
	@echo 'make                  tools, and the module if the running kernel has headers'
	@echo 'make module KDIR=DIR  the module for another kernel'
	@echo 'make tools            build/qcow and build/qcowd'
	@echo 'make install          tools, man pages, systemd unit, module by DKMS (as root)'
	@echo 'make deps             install the Debian packages all this needs (as root)'
	@echo 'make demo             boot a VM from a compressed qcow2 image (about 10 minutes at first)'
	@echo 'make check            everything that must pass (about 45 minutes at first)'
	@echo 'make check-unit       unit tests under ASan and UBSan (1 minute)'
	@echo 'make check-hostile    hostile images, beside QEMU (3 minutes)'
	@echo 'make check-tools      the image verbs, beside qemu-img (2 minutes)'
	@echo 'make check-model      the model of the write protocol, with spin (minutes, 1 GiB)'
	@echo 'make check-vm KERNEL=6.1|6.12|7.2|debug'
	@echo 'make check-debug      integration tests under KASAN, lockdep, kmemleak'
	@echo 'make check-full       all tests, all kernels'
	@echo 'make lint             checkpatch, sparse, clang-format, shellcheck, layering'
	@echo 'make fuzz             fuzz the parsers'
	@echo 'make bench            deterministic benchmarks beside the peers'
