# The tests of libvkinfer: installed into a folder, and seen from there as any program sees it.

library_prefix=$package_dir/.build/installed
library_work=$package_dir/.build/library-tests

library_warnings=(-Wall -Wextra -Werror -Wno-missing-field-initializers)

# library_build COMPILER SOURCE PROGRAM [OPTION...]
library_build() {
  local compiler=$1 source=$2 program=$3 flags
  shift 3
  flags=$(PKG_CONFIG_PATH=$library_prefix/lib/pkgconfig pkg-config --cflags --libs vkinfer) || return
  # shellcheck disable=SC2086
  "$compiler" "${library_warnings[@]}" -g -O1 "$@" "$source" $flags -lvulkan -lm -lpthread \
    -Wl,-rpath,"$library_prefix/lib" -o "$library_work/$program"
}

# library_run PROGRAM [ARGUMENT...]: the limit is for a program that hangs, not for a machine that is busy.
library_run() {
  local status=0
  timeout --kill-after=10 900 "$@" || status=$?
  [ $status -ne 124 ] || echo "${1##*/} hangs: it was ended after 900 s" >&2
  return $status
}

library_setup() {
  need_packages gcc g++ libc6-dev binutils python3
  mkdir -p "$library_work/states"
  Tools/install --prefix "$library_prefix"
  python3 Tests/C/tiny-model.py "$library_work/tiny.gguf"
  export VK_DRIVER_FILES=$lavapipe
}

# The symbols, the constants and the layout of the structs.
library_abi() {
  local header=$library_prefix/include/vkinfer.h
  {
    readelf --dyn-syms --wide "$library_prefix/lib/libvkinfer.so" |
      awk '$5 == "GLOBAL" && $7 != "UND" { print "symbol " $8 }' | sort
    sed -n 's/^#define \(VKINFER_[A-Z_]*\) \([^ ]*\).*/constant \1 \2/p' "$header" | grep -v VKINFER_VERSION_
    python3 Tests/C/abi-members.py "$header" >"$library_work/abi-members.h"
    library_build gcc Tests/C/abi.c abi -I"$library_work" && "$library_work/abi"
  } >"$library_work/abi.txt" || return
  diff -u Tests/C/abi.txt "$library_work/abi.txt" || {
    echo "the binary interface has changed: programs that are built will break, unless lines were only added, and structs with a size grew at their end; if that is meant, cp $library_work/abi.txt Tests/C/abi.txt" >&2
    return 1
  }
}

# Nothing of Swift is needed where the library runs.
library_needs() {
  local wrong
  wrong=$(ldd "$library_prefix/lib/libvkinfer.so" | grep -Ei 'swift|foundation|dispatch|not found' || true)
  [ -z "$wrong" ] || {
    printf 'the library needs more than the system has:\n%s\n' "$wrong" >&2
    return 1
  }
}

# The examples, built by both compilers and as C++.
library_examples() {
  local compiler example output
  for compiler in gcc clang; do
    for example in minimal chat parallel streaming; do
      library_build $compiler Examples/c/$example.c $example-$compiler -std=c99 -pedantic -Wmissing-field-initializers ||
        return
    done
  done
  g++ "${library_warnings[@]}" -std=c++11 -fsyntax-only -x c++ "$library_prefix/include/vkinfer.h" || return
  [ "$(grep -c '' Examples/c/minimal.c)" -lt 40 ] || return
  output=$("$library_work/minimal-gcc" "$model") && [[ $output == *" Paris."* ]] || return
  # Of 80 MB of weights, room for some at a time.
  output=$("$library_work/streaming-gcc" "$model" 90) && [[ $output == *" Paris."* ]] || return
  output=$(printf 'What is the capital of France?\n' | "$library_work/chat-clang" "$model") && [[ $output == *Paris* ]] || return
  output=$("$library_work/parallel-gcc" "$model" 64 4) && [ "$(grep -c '' <<<"$output")" -ge 64 ] || return
  # Counting on: the text of every session is its own.
  grep -qx '17, 18, 19, 20,' <<<"$output" || return
}

# Programs that hand over anything, keep and damage states, use 32 threads, a mesh or copies: with the address sanitizer.
library_programs() {
  local program sanitizers=(-fsanitize=address,undefined -fno-sanitize-recover=undefined)
  for program in arguments state stress mesh placement embedding; do
    library_build gcc Tests/C/$program.c $program -std=gnu11 "${sanitizers[@]}" || return
  done
  library_build gcc Examples/c/minimal.c minimal-sanitized -std=c99 "${sanitizers[@]}" || return
  library_build clang Tests/C/process.c process -std=gnu11 || return
  # A copy that no program is linked to, to be loaded and unloaded.
  cp "$library_prefix/lib/libvkinfer.so" "$library_work/copy.so"
  local tiny=$library_work/tiny.gguf
  library_run "$library_work/arguments" "$tiny" || return
  library_run "$library_work/state" "$tiny" "$library_work/states" || return
  library_run "$library_work/mesh" "$tiny" "$library_work/states" || return
  library_run "$library_work/placement" "$tiny" "$library_work/states" || return
  library_run "$library_work/embedding" "$tiny" || return
  library_run "$library_work/stress" "$tiny" 32 20 "$library_work/states" || return
  library_run "$library_work/stress" "$tiny" 32 10 "$library_work/states" 2 || return
  library_run "$library_work/minimal-sanitized" "$tiny" >/dev/null || return
  library_run "$library_work/process" "$tiny" "$library_work/copy.so" "$model"
}

# Data races among 32 threads that open, feed, cancel, close and load: a library of its own, built with the thread
# sanitizer, and the program with the same compiler. Two minutes to build, so no part of every run: Tools/test races.
library_races() {
  local scratch=$package_dir/.build/thread-sanitizer folder=$library_work/races runtime
  say "building the library with the thread sanitizer"
  quietly swift build "${release_flags[@]}" --sanitize thread --scratch-path "$scratch" --product vkinfer-c || return
  mkdir -p "$folder/states"
  cp "$scratch/release/libvkinfer-c.so" "$folder/libvkinfer.so.0"
  ln -sfn libvkinfer.so.0 "$folder/libvkinfer.so"
  python3 Tests/C/tiny-model.py "$library_work/tiny.gguf"
  # Swift's sanitizer intercepts its own queue library, too, which must be there then.
  runtime=$(dirname "$(dirname "$(readlink -f "$(command -v swift)")")")
  "$runtime/bin/clang" "${library_warnings[@]}" -fsanitize=thread -g -O1 -std=gnu11 -ISources/CVKInfer/include \
    Tests/C/stress.c -L"$folder" -lvkinfer "$runtime"/lib/swift_static/linux/lib{dispatch,BlocksRuntime}.a -lstdc++ \
    -lpthread -lm -Wl,-rpath,"$folder" -o "$folder/stress" 2>"$folder/link.log" || {
    cat "$folder/link.log" >&2
    return 1
  }
  local copies
  for copies in 1 2; do
    VK_DRIVER_FILES=$lavapipe TSAN_OPTIONS="halt_on_error=0 exitcode=66 history_size=4" \
      library_run "$folder/stress" "$library_work/tiny.gguf" 32 20 "$folder/states" $copies || return
  done
}

# From Python, without anything but ctypes: the text is that of the command line.
library_binding() {
  local text
  text=$("$library_prefix/bin/vkinfer" generate -m "$model" -p "$prompt" -n 12 --quiet) || return
  python3 Tests/C/binding.py "$library_prefix/lib/libvkinfer.so" "$model" "$text"
}
