# minivm: see README.md. Everything is built below $(BUILD); SAN=1 builds with ASan and UBSan into its own folder.

CC      ?= cc
PREFIX  ?= /usr/local
VERSION := 0.1.0
SAN     ?= 0

ifeq ($(SAN),1)
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

CPPFLAGS += -I. -D_GNU_SOURCE -DMINIVM_VERSION='"$(VERSION)"' -DMINIVM_PREFIX='"$(PREFIX)"'
CFLAGS   += -std=gnu11 $(OPT) $(SANFLAGS) -Wall -Wextra -Werror -Wmissing-prototypes \
            -Wstrict-prototypes -Wno-unused-parameter -fno-strict-aliasing -fwrapv -pthread
LDFLAGS  += $(SANFLAGS) -pthread
LDLIBS   += -lz -lm

# Only SDL2's headers: ui/sdl_lib.c loads the library when a window is opened (-ldl: glibc before 2.34).
ifeq ($(call have,sdl2),1)
CPPFLAGS += -DHAVE_SDL2 $(shell $(PKG_CONFIG) --cflags sdl2)
SDL_LIBS := -ldl
endif
ifeq ($(call have,libpng),1)
CPPFLAGS += -DHAVE_PNG $(shell $(PKG_CONFIG) --cflags libpng)
LDLIBS   += $(shell $(PKG_CONFIG) --libs libpng)
endif
ifeq ($(call have,json-c),1)
CPPFLAGS += -DHAVE_JSONC $(shell $(PKG_CONFIG) --cflags json-c)
LDLIBS   += $(shell $(PKG_CONFIG) --libs json-c)
endif
ifeq ($(call have,libzstd),1)
CPPFLAGS += -DHAVE_ZSTD $(shell $(PKG_CONFIG) --cflags libzstd)
LDLIBS   += $(shell $(PKG_CONFIG) --libs libzstd)
endif

# One archive a folder, in the order in which they may use each other (docs/architecture.md).
MODULES := vmm ui bios devices cpu block core lib
ARCHIVES := $(foreach m,$(MODULES),$(BUILD)/lib$(m).a)
PROGRAMS := $(BUILD)/minivm $(BUILD)/minivm-img

all: $(PROGRAMS)

define module
$(1)_SRC := $$(filter-out %/main.c,$$(wildcard $(1)/*.c))
$(1)_ASM := $$(wildcard $(1)/*.S)
$(1)_OBJ := $$(patsubst %.c,$(BUILD)/%.o,$$($(1)_SRC)) $$(patsubst %.S,$(BUILD)/%.o,$$($(1)_ASM))
$(BUILD)/lib$(1).a: $$($(1)_OBJ)
	@rm -f $$@
	@$(AR) rcs $$@ $$^
.PHONY: $(1)
$(1): $(BUILD)/lib$(1).a
endef
$(foreach m,$(MODULES),$(eval $(call module,$(m))))

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC      $<"
	@$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/%.o: %.S
	@mkdir -p $(@D)
	@echo "  AS      $<"
	@$(CC) $(CPPFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/minivm: $(BUILD)/vmm/main.o $(ARCHIVES)
	@echo "  LINK    $@"
	@$(CC) $(LDFLAGS) -o $@ $< $(ARCHIVES) $(SDL_LIBS) $(LDLIBS)

IMG_OBJ := $(patsubst %.c,$(BUILD)/%.o,tools/minivm-img.c $(wildcard tools/img_*.c))
$(BUILD)/minivm-img: $(IMG_OBJ) $(BUILD)/libblock.a $(BUILD)/liblib.a
	@echo "  LINK    $@"
	@$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# Unit tests: tests/unit/<module>/<name>.c, each a cmocka program linked with that module and those below it.
UNIT_SRC := $(wildcard tests/unit/*/*_test.c)
UNIT_BIN := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(UNIT_SRC))
below_lib     := lib
below_core    := core lib
below_block   := block lib
below_cpu     := cpu core lib
below_devices := devices block core lib
below_bios    := bios devices block core lib
below_ui      := ui devices block core lib
below_vmm     := $(MODULES)
define unit_module
$(BUILD)/unit/$(1)/%: $(BUILD)/tests/unit/$(1)/%.o $(foreach m,$(below_$(1)),$(BUILD)/lib$(m).a)
	@mkdir -p $$(@D)
	@echo "  LINK    $$@"
	@$(CC) $(LDFLAGS) -o $$@ $$^ -lcmocka $(if $(filter ui vmm,$(1)),$$(SDL_LIBS)) $$(LDLIBS)
endef
$(foreach m,$(MODULES),$(eval $(call unit_module,$(m))))
.SECONDARY: $(patsubst %.c,$(BUILD)/%.o,$(UNIT_SRC))

unit: $(UNIT_BIN)
# unit-cpu, unit-block, ...: builds and runs one module's unit tests.
unit-%: FORCE
	@$(MAKE) --no-print-directory $(filter $(BUILD)/unit/$*/%,$(UNIT_BIN))
	@set -e; for t in $(filter $(BUILD)/unit/$*/%,$(UNIT_BIN)); do echo "== $$t"; $$t; done
FORCE:

# Random instruction streams, the host's CPU against the software CPU: see tests/diff/diff.c.
DIFF_OBJ := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/diff/*.c))
$(BUILD)/cpu-diff: $(DIFF_OBJ) $(BUILD)/libcpu.a $(BUILD)/libcore.a $(BUILD)/liblib.a
	@echo "  LINK    $@"
	@$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)
diff: $(BUILD)/cpu-diff

# The man page is printed from the same table as -h.
$(BUILD)/mkman: $(BUILD)/tools/mkman.o $(ARCHIVES)
	@echo "  LINK    $@"
	@$(CC) $(LDFLAGS) -o $@ $< $(ARCHIVES) $(SDL_LIBS) $(LDLIBS)

$(BUILD)/minivm.1: $(BUILD)/mkman
	@$(BUILD)/mkman > $@

man: $(BUILD)/minivm.1

docs: $(BUILD)/mkman
	$(BUILD)/mkman --markdown > docs/commands.md

demo: all
	scripts/boot-installer $(BUILD)

test: all unit $(TEST_PROGRAMS)
	@python3 tests/run.py --build $(BUILD) $(TEST_ARGS)

install: all man
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 755 $(PROGRAMS) $(DESTDIR)$(PREFIX)/bin/
	install -m 644 $(BUILD)/minivm.1 $(DESTDIR)$(PREFIX)/share/man/man1/

# Layout is clang-format's business; `make format-check` fails when a file differs.
FORMATTED := $(wildcard */*.[ch] tests/*/*.[ch] tests/*/*/*.[ch])
format:
	clang-format -i $(FORMATTED)
format-check:
	clang-format --dry-run -Werror $(FORMATTED)

# Guest instructions a second on the software CPU.
$(BUILD)/bench/cpu_speed: $(BUILD)/bench/cpu_speed.o $(foreach m,cpu core lib,$(BUILD)/lib$(m).a)
	@echo "  LINK    $@"
	@$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)
bench-cpu: $(BUILD)/bench/cpu_speed
	@$<
.PHONY: bench-cpu

clean:
	rm -rf build build-san

-include $(shell [ -d $(BUILD) ] && find $(BUILD) -name '*.d')
.PHONY: all unit diff man demo test install format format-check clean FORCE
.DEFAULT_GOAL := all
