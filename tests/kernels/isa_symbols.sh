#!/bin/sh
# Usage: isa_symbols.sh "<isa>[|<isa>...]" <object files...>
# Refuses a symbol with weak or unique linkage, and any defined external symbol outside sextant::kernels::cpu::<isa>, in the
# objects compiled once per instruction set: the linker could keep the copy of one instruction set for all of them.
set -eu
isas=$1
shift
[ "$#" -gt 0 ] || { echo "no object files were given" >&2; exit 2; }
# nm -C: "<address> <type> <name>"; V, W, v, w are weak, u unique; lower case are local, U undefined.
symbols=$(nm -C --defined-only "$@")
bad=$(printf '%s\n' "$symbols" | awk -v isas="$isas" '
  $2 ~ /^[VWvwu]$/ && $3 !~ /^DW\.ref\./ { print "weak: " $0 }
  $2 ~ /^[A-Z]$/ && $2 !~ /^[VW]$/ && $0 !~ ("sextant::kernels::cpu::(" isas ")::") { print "external: " $0 }')
if [ -n "$bad" ]; then
  printf '%s\n' "$bad" >&2
  exit 1
fi
count=$(printf '%s\n' "$symbols" | grep -c ' T ' || true)
[ "$count" -gt 0 ] || { echo "the objects export nothing: was nm given the right files?" >&2; exit 1; }
echo "$count entries, none weak"
