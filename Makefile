# SPDX-License-Identifier: MIT
# minivm: see README.md. Everything is built below $(BUILD); SAN=1 builds with ASan and UBSan into its own folder.
# Goals: all (default), test, test-long, unit, diff, fuzz-replay, fuzz (CC=clang), man, docs, demo, bench, bench-block, install, format, clean.

CC      ?= cc
PREFIX  ?= /usr/local
VERSION := 0.1.0
SAN     ?= 0

ifeq ($(FUZZ),1)
BUILD   ?= build-fuzz
SANFLAGS := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
OPT     ?= -O1 -g
else ifeq ($(SAN),1)
BUILD   ?= build-san
SANFLAGS := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
OPT     ?= -O1 -g
else
BUILD   ?= build
SANFLAGS :=
OPT     ?= -O2 -g
endif

PKG_CONFIG ?= pkg-config
have = $(shell $(PKG_CONFIG) --exists $(1) 2>/dev/null && echo 1)
header = $(shell $(CC) $(CPPFLAGS) -include $(1) -E -x c /dev/null >/dev/null 2>&1 && echo 1)

CPPFLAGS += -I. -D_GNU_SOURCE -DMINIVM_VERSION='"$(VERSION)"'
CFLAGS   += -std=gnu11 $(OPT) $(SANFLAGS) -Wall -Wextra -Werror -Wmissing-prototypes \
            -Wstrict-prototypes -Wno-unused-parameter -fno-strict-aliasing -fwrapv -pthread
LDFLAGS  += $(SANFLAGS) -pthread
LDLIBS   += -lz -lm

# Goals that compile nothing need no libraries.
ifneq ($(filter-out clean format format-check,$(or $(MAKECMDGOALS),all)),)
# Required: zlib and json-c (known by their headers where pkg-config does not know them).
ifneq ($(call header,zlib.h),1)
$(error zlib's headers are missing: install zlib1g-dev (Fedora: zlib-devel), or run scripts/deps build)
endif
ifeq ($(call have,json-c),1)
CPPFLAGS += $(shell $(PKG_CONFIG) --cflags json-c)
LDLIBS   += $(shell $(PKG_CONFIG) --libs json-c)
else ifeq ($(call header,json-c/json.h),1)
LDLIBS   += -ljson-c
else
$(error json-c, which QMP needs, is missing: install libjson-c-dev (Fedora: json-c-devel), or run scripts/deps build)
endif
CPPFLAGS += -DHAVE_JSONC

# Optional. Of SDL2 only the headers: ui/sdl_lib.c loads the library when a window is opened (-ldl: glibc before 2.34).
WITHOUT :=
ifeq ($(call have,sdl2),1)
CPPFLAGS += -DHAVE_SDL2 $(shell $(PKG_CONFIG) --cflags sdl2)
SDL_LIBS := -ldl
else
WITHOUT  += SDL2 (no window)
endif
ifeq ($(call have,libpng),1)
CPPFLAGS += -DHAVE_PNG $(shell $(PKG_CONFIG) --cflags libpng)
LDLIBS   += $(shell $(PKG_CONFIG) --libs libpng)
else
WITHOUT  += libpng (screenshots as PPM only)
endif
ifeq ($(call have,liburing),1)
CPPFLAGS += -DHAVE_LIBURING $(shell $(PKG_CONFIG) --cflags liburing)
LDLIBS   += $(shell $(PKG_CONFIG) --libs liburing)
else
WITHOUT  += liburing (no io_uring, disks use threads)
endif
ifeq ($(call have,libzstd),1)
CPPFLAGS += -DHAVE_ZSTD $(shell $(PKG_CONFIG) --cflags libzstd)
LDLIBS   += $(shell $(PKG_CONFIG) --libs libzstd)
else
WITHOUT  += libzstd (no zstd clusters in qcow2)
endif
ifeq ($(call have,gnutls),1)
CPPFLAGS += -DHAVE_GNUTLS $(shell $(PKG_CONFIG) --cflags gnutls)
LDLIBS   += $(shell $(PKG_CONFIG) --libs gnutls)
else
WITHOUT  += GnuTLS (no TLS)
endif
ifeq ($(call have,capstone),1)
CPPFLAGS += -DHAVE_CAPSTONE $(shell $(PKG_CONFIG) --cflags capstone)
LDLIBS   += $(shell $(PKG_CONFIG) --libs capstone)
else
WITHOUT  += libcapstone (-d out_asm in hexadecimal)
endif
ifeq ($(call have,slirp),1)
CPPFLAGS += -DHAVE_SLIRP $(shell $(PKG_CONFIG) --cflags slirp)
LDLIBS   += $(shell $(PKG_CONFIG) --libs slirp)
else
WITHOUT  += libslirp (no user network)
endif
ifeq ($(call header,libvdeplug.h),1)
CPPFLAGS += -DHAVE_VDE
LDLIBS   += -lvdeplug
else
WITHOUT  += libvdeplug (no vde network)
endif
ifneq ($(WITHOUT),)
ifeq ($(MAKELEVEL),0)
$(info Building without $(WITHOUT))
endif
endif

# Objects made with other flags are made again: their rules depend on this file, which changes only with the flags.
differ = $(subst x$(1),,x$(2))$(subst x$(2),,x$(1))
remember = $(shell mkdir -p $(BUILD))$(if $(call differ,$(strip $(2)),$(shell cat $(1) 2>/dev/null)),$(file >$(1),$(strip $(2))))
$(call remember,$(BUILD)/flags,$(CC) $(CPPFLAGS) $(CFLAGS))
$(call remember,$(BUILD)/link-flags,$(LDFLAGS) $(LDLIBS) $(SDL_LIBS))
$(call remember,$(BUILD)/prefix,$(PREFIX))
endif

# One archive a folder, in the order in which they may use each other (docs/architecture.md).
MODULES := vmm ui bios devices cpu net block core lib
ARCHIVES := $(foreach m,$(MODULES),$(BUILD)/lib$(m).a)
PROGRAMS := $(BUILD)/minivm $(BUILD)/minivm-img $(BUILD)/minivm-nbd

all: $(PROGRAMS)

define module
$(1)_SRC := $$(filter-out %/main.c,$$(wildcard $(1)/*.c))
$(1)_ASM := $$(wildcard $(1)/*.S)
$(1)_OBJ := $$(patsubst %.c,$(BUILD)/%.o,$$($(1)_SRC)) $$(patsubst %.S,$(BUILD)/%.o,$$($(1)_ASM))
# A source that went away must leave the archive, too.
$$(if $$(wildcard $(BUILD)/flags),$$(call remember,$(BUILD)/lib$(1).list,$$(sort $$($(1)_OBJ))))
$(BUILD)/lib$(1).a: $$($(1)_OBJ) $(BUILD)/lib$(1).list
	@rm -f $$@
	@$(AR) rcs $$@ $$($(1)_OBJ)
.PHONY: $(1)
$(1): $(BUILD)/lib$(1).a
endef
$(foreach m,$(MODULES),$(eval $(call module,$(m))))

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	@echo "  CC      $<"
	@$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/%.o: %.S $(BUILD)/flags
	@mkdir -p $(@D)
	@echo "  AS      $<"
	@$(CC) $(CPPFLAGS) -MMD -MP -c -o $@ $<

link = @mkdir -p $(@D) && echo "  LINK    $@" && $(CC) $(LDFLAGS) -o $@ $(filter %.o %.a,$^) $(1) $(SDL_LIBS) $(LDLIBS)

# Only the ROM search knows the prefix.
$(BUILD)/bios/rom.o: CPPFLAGS += -DMINIVM_PREFIX='"$(PREFIX)"'
$(BUILD)/bios/rom.o: $(BUILD)/prefix

$(BUILD)/minivm: $(BUILD)/vmm/main.o $(ARCHIVES) $(BUILD)/link-flags
	$(call link)

IMG_OBJ := $(patsubst %.c,$(BUILD)/%.o,tools/minivm-img.c $(wildcard tools/img_*.c))
$(BUILD)/minivm-img: $(IMG_OBJ) $(BUILD)/libblock.a $(BUILD)/liblib.a $(BUILD)/link-flags
	$(call link)

NBD_OBJ := $(patsubst %.c,$(BUILD)/%.o,tools/minivm-nbd.c $(wildcard tools/nbd_*.c))
$(BUILD)/minivm-nbd: $(NBD_OBJ) $(BUILD)/libblock.a $(BUILD)/liblib.a $(BUILD)/link-flags
	$(call link)

# Unit tests: tests/unit/<module>/<name>_test.c, each a cmocka program linked with that module and those below it; what
# several tests of a folder share is in headers there.
UNIT_SRC := $(wildcard tests/unit/*/*_test.c)
UNIT_BIN := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(UNIT_SRC))
below_lib     := lib
below_core    := core lib
below_block   := block lib
below_net     := net lib
below_cpu     := cpu core lib
below_devices := devices net block core lib
below_bios    := bios devices net block core lib
below_ui      := ui devices net block core lib
below_vmm     := $(MODULES)
below_tools   := block lib
define unit_module
$(BUILD)/unit/$(1)/%: $(BUILD)/tests/unit/$(1)/%.o $(foreach m,$(below_$(1)),$(BUILD)/lib$(m).a) $(BUILD)/link-flags
	$$(call link,-lcmocka)
endef
$(foreach m,$(MODULES) tools,$(eval $(call unit_module,$(m))))
.SECONDARY: $(patsubst %.c,$(BUILD)/%.o,$(UNIT_SRC))

unit: $(UNIT_BIN)
# unit-cpu, unit-block, ...: builds and runs one module's unit tests.
unit-%: FORCE
	@$(MAKE) --no-print-directory $(filter $(BUILD)/unit/$*/%,$(UNIT_BIN))
	@set -e; for t in $(filter $(BUILD)/unit/$*/%,$(UNIT_BIN)); do echo "== $$t"; $$t; done
FORCE:

# Random instruction streams, the host's CPU against the software CPU: see tests/diff/diff.c.
DIFF_OBJ := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/diff/*.c))
$(BUILD)/cpu-diff: $(DIFF_OBJ) $(foreach m,$(below_cpu),$(BUILD)/lib$(m).a) $(BUILD)/link-flags
	$(call link)
diff: $(BUILD)/cpu-diff

# Fuzz targets: tests/fuzz/<name>_fuzz.c. `make fuzz CC=clang` builds them for libFuzzer in a folder of their own (run
# build-fuzz/fuzz/<name>_fuzz CORPUS_DIR); fuzz-replay builds them with any compiler as programs that run a fixed
# sequence of inputs, or the files named. See tests/fuzz/replay.c.
FUZZ_BIN := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(wildcard tests/fuzz/*_fuzz.c))
FUZZ_RIG := $(patsubst %.c,$(BUILD)/%.o,$(filter-out %_fuzz.c tests/fuzz/replay.c,$(wildcard tests/fuzz/*.c)))
ifeq ($(FUZZ),1)
FUZZ_MAIN := -fsanitize=fuzzer
else
FUZZ_MAIN := $(BUILD)/tests/fuzz/replay.o
endif
$(BUILD)/fuzz/%: $(BUILD)/tests/fuzz/%.o $(FUZZ_RIG) $(filter %.o,$(FUZZ_MAIN)) $(ARCHIVES) $(BUILD)/link-flags
	$(call link,$(filter-out %.o,$(FUZZ_MAIN)))
.SECONDARY: $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/fuzz/*.c))
fuzz-replay: $(FUZZ_BIN)
fuzz:
	@$(CC) --version | grep -q clang || { echo "libFuzzer is clang's: make fuzz CC=clang" >&2; exit 1; }
	@$(MAKE) --no-print-directory FUZZ=1 fuzz-replay

# The man pages are printed from the same tables as -h.
$(BUILD)/mkman: $(BUILD)/tools/mkman.o $(ARCHIVES) $(BUILD)/link-flags
	$(call link)

$(BUILD)/minivm.1: $(BUILD)/mkman
	@$(BUILD)/mkman > $@.part
	@mv $@.part $@

$(BUILD)/minivm-img.1: $(BUILD)/mkman $(BUILD)/minivm-img
	@$(BUILD)/minivm-img --help | $(BUILD)/mkman --img > $@.part
	@mv $@.part $@

$(BUILD)/minivm-nbd.1: $(BUILD)/mkman $(BUILD)/minivm-nbd
	@$(BUILD)/minivm-nbd --help | $(BUILD)/mkman --nbd > $@.part
	@mv $@.part $@

MAN := $(BUILD)/minivm.1 $(BUILD)/minivm-img.1 $(BUILD)/minivm-nbd.1
man: $(MAN)

docs: $(BUILD)/mkman
	$(BUILD)/mkman --markdown > docs/commands.md

demo: all
	scripts/boot-installer $(BUILD)

# What `make test` needs built; `make test TEST_ARGS='name ...'` runs the tests whose names contain a word.
TESTED := all unit diff fuzz-replay man
TEST = python3 tests/run.py --build $(BUILD) $(if $(filter 1,$(SAN)),--sanitized)
test: $(TESTED)
	@$(TEST) $(TEST_ARGS)
# More instructions of the differential test, longer replays of the fuzz targets.
test-long: $(TESTED)
	@$(TEST) --long $(TEST_ARGS)

install: all man
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 755 $(PROGRAMS) $(DESTDIR)$(PREFIX)/bin/
	install -m 644 $(MAN) $(DESTDIR)$(PREFIX)/share/man/man1/

# Layout is clang-format's business; `make format-check` fails when a file differs.
FORMATTED := $(wildcard */*.[ch] bench/*/*.[ch] tests/*/*.[ch] tests/*/*/*.[ch])
format:
	clang-format -i $(FORMATTED)
format-check:
	clang-format --dry-run -Werror $(FORMATTED)

# Guest instructions a second on the software CPU, without a PC around it.
$(BUILD)/bench/cpu_speed: $(BUILD)/bench/cpu_speed.o $(foreach m,$(below_cpu),$(BUILD)/lib$(m).a) $(BUILD)/link-flags
	$(call link)
cpu-speed: $(BUILD)/bench/cpu_speed
	@$<

# minivm beside QEMU (docs/benchmarks.md): start-up and a Linux guest's disk; programs and boots on the software CPU.
# Without BENCH_ARGS bench measures the disk tools, too.
bench: all
	@python3 bench/run.py --build $(BUILD) $(BENCH_ARGS)
	$(if $(BENCH_ARGS),,@python3 bench/block.py --build $(BUILD) && python3 bench/nbd.py --build $(BUILD))
bench-block: all
	@python3 bench/block.py --build $(BUILD) $(BENCH_ARGS)
	@python3 bench/nbd.py --build $(BUILD) $(BENCH_ARGS)
bench-cpu: all
	@python3 bench/cpu/run.py --build $(BUILD) --json $(BUILD)/bench-cpu.json $(BENCH_ARGS)

clean:
	rm -rf build build-san build-fuzz

-include $(shell [ -d $(BUILD) ] && find $(BUILD) -name '*.d')
.PHONY: all unit diff fuzz-replay fuzz man docs demo test test-long install format format-check cpu-speed bench bench-block bench-cpu clean FORCE
.DEFAULT_GOAL := all
