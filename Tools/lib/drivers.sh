# Vulkan drivers to run a program on: the system's lavapipe, and others unpacked beside the system.

. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

swiftshader_dir=$sdk_dir/swiftshader
# Debian 13's Mesa, and its newest one, each with loader and validation layer, in roots of their own.
mesa25_root=$sdk_dir/mesa25
mesa26_root=$sdk_dir/mesa26

need_mesa_root() {
  case $1 in
  "$mesa25_root") debian_root "$1" trixie mesa-vulkan-drivers vulkan-validationlayers libvulkan1 ;;
  "$mesa26_root") debian_root "$1" "trixie trixie-backports" mesa-vulkan-drivers vulkan-validationlayers libvulkan1 ;;
  esac
}

# SwiftShader as Debian's Chromium has it: the poorest device there is.
need_swiftshader() {
  debian_files "$swiftshader_dir" bookworm-security chromium-common \
    ./usr/lib/chromium/libvk_swiftshader.so ./usr/lib/chromium/vk_swiftshader_icd.json
}

# The AMD families whose compiler runs without hardware: Mesa 25 is the last that can pretend to have one.
radv_families=(navi21 navi31 gfx1201 vega10)

# run_with_driver DRIVER VALIDATE COMMAND...: see Tools/with-driver. VALIDATE is yes or empty.
run_with_driver() {
  local driver=$1 validate=$2 root= manifest
  shift 2
  # The validation layer of a root works with the loader and the C library of that root.
  [ -z "$validate" ] || root=$mesa25_root
  local environment=(VK_LOADER_LAYERS_DISABLE='~implicit~')
  case $driver in
  lavapipe)
    need_mesa
    manifest=$root/usr/share/vulkan/icd.d/lvp_icd.json
    [ -n "$root" ] || manifest=$(ls /usr/share/vulkan/icd.d/lvp_icd*.json | head -n 1)
    ;;
  lavapipe26)
    root=$mesa26_root
    manifest=$root/usr/share/vulkan/icd.d/lvp_icd.json
    ;;
  swiftshader)
    need_swiftshader
    manifest=$swiftshader_dir/vk_swiftshader_icd.json
    ;;
  radv:*)
    root=$mesa25_root
    manifest=$root/usr/share/vulkan/icd.d/radeon_icd.json
    environment+=(RADV_FORCE_FAMILY="${driver#radv:}")
    ;;
  *) fail "no driver $driver: lavapipe, lavapipe26, swiftshader or radv:FAMILY" ;;
  esac
  environment+=(VK_DRIVER_FILES="$manifest" VK_ICD_FILENAMES="$manifest")

  local run=("$@")
  if [ -n "$root" ]; then
    need_mesa_root "$root"
    run[0]=$(command -v "$1") || fail "no program $1"
    # What the root lacks comes from the system.
    run=("$root/usr/lib64/$dynamic_loader" --library-path "$root/usr/lib/$multiarch" "${run[@]}")
  fi
  if [ -n "$validate" ]; then
    environment+=(VK_LAYER_PATH="$root/usr/share/vulkan/explicit_layer.d")
    run_validated
  else
    env "${environment[@]}" "${run[@]}"
  fi
}

# Runs what run_with_driver prepared: what the layer says goes to a file, and any of it is a failure.
run_validated() {
  local findings status=0
  findings=$(mktemp)
  environment+=(
    VK_LOADER_LAYERS_ENABLE='*khronos_validation' VK_KHRONOS_VALIDATION_VALIDATE_SYNC=true
    VK_KHRONOS_VALIDATION_DEBUG_ACTION=VK_DBG_LAYER_ACTION_LOG_MSG VK_KHRONOS_VALIDATION_REPORT_FLAGS=error,warn
    VK_KHRONOS_VALIDATION_LOG_FILENAME="$findings")
  env "${environment[@]}" "${run[@]}" || status=$?
  if [ -s "$findings" ]; then
    printf 'the validation layer reports:\n' >&2
    head -c 20000 "$findings" >&2
    [ $status -ne 0 ] || status=1
  fi
  rm -f "$findings"
  return $status
}
