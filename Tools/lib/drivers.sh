# Vulkan drivers to run a program on: the system's lavapipe, and others unpacked beside the system.

. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

mesa_root=$sdk_dir/mesa26
swiftshader_dir=$sdk_dir/swiftshader

# Debian 13's newest Mesa with loader and validation layer, in a root of its own.
need_mesa_root() {
  debian_root "$mesa_root" "trixie trixie-backports" mesa-vulkan-drivers vulkan-validationlayers libvulkan1
}

# SwiftShader as Debian's Chromium has it: the poorest device there is.
need_swiftshader() {
  debian_files "$swiftshader_dir" bookworm-security chromium-common \
    ./usr/lib/chromium/libvk_swiftshader.so ./usr/lib/chromium/vk_swiftshader_icd.json
}

# The RADV families that are compiled for without hardware.
radv_families=(navi21 navi31 gfx1201 vega10)

# run_with_driver DRIVER VALIDATE COMMAND...: see Tools/with-driver. VALIDATE is yes or empty.
run_with_driver() {
  local driver=$1 validate=$2 manifest in_root=$2 status=0
  shift 2
  local environment=()
  case $driver in
  lavapipe)
    need_mesa
    manifest=$(ls /usr/share/vulkan/icd.d/lvp_icd*.json | head -n 1)
    ;;
  lavapipe26)
    need_mesa_root
    manifest=$mesa_root/usr/share/vulkan/icd.d/lvp_icd.json in_root=yes
    ;;
  swiftshader)
    need_swiftshader
    manifest=$swiftshader_dir/vk_swiftshader_icd.json
    ;;
  radv:*)
    need_mesa_root
    manifest=$mesa_root/usr/share/vulkan/icd.d/radeon_icd.json in_root=yes
    environment+=(RADV_FORCE_FAMILY="${driver#radv:}")
    ;;
  *) fail "no driver $driver: lavapipe, lavapipe26, swiftshader or radv:FAMILY" ;;
  esac
  environment+=(VK_DRIVER_FILES="$manifest" VK_ICD_FILENAMES="$manifest" VK_LOADER_LAYERS_DISABLE='~implicit~')

  local run=("$@")
  if [ -n "$in_root" ]; then
    need_mesa_root
    run[0]=$(command -v "$1") || fail "no program $1"
    # The root's loader, layer and C library; what the root lacks comes from the system.
    run=("$mesa_root/usr/lib64/$dynamic_loader" --library-path "$mesa_root/usr/lib/$multiarch" "${run[@]}")
  fi
  [ -n "$validate" ] || {
    env "${environment[@]}" "${run[@]}"
    return
  }

  # What the layer has to say goes to a file, and any of it is a failure.
  local findings
  findings=$(mktemp)
  environment+=(
    VK_ADD_LAYER_PATH="$mesa_root/usr/share/vulkan/explicit_layer.d" VK_INSTANCE_LAYERS=VK_LAYER_KHRONOS_validation
    VK_KHRONOS_VALIDATION_VALIDATE_SYNC=true VK_KHRONOS_VALIDATION_DEBUG_ACTION=VK_DBG_LAYER_ACTION_LOG_MSG
    VK_KHRONOS_VALIDATION_REPORT_FLAGS=error,warn VK_KHRONOS_VALIDATION_LOG_FILENAME="$findings")
  env "${environment[@]}" "${run[@]}" || status=$?
  if [ -s "$findings" ]; then
    printf 'the validation layer reports:\n' >&2
    head -c 20000 "$findings" >&2
    [ $status -ne 0 ] || status=1
  fi
  rm -f "$findings"
  return $status
}
