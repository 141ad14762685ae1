import ArgumentParser
import Kernels

/// What a benchmark leaves out, to see what it brings.
struct AblationOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "off makes each operation a dispatch of its own, with a barrier behind it; a list measures each. Without matrix units.",
      valueName: "off,on"))
  var fusion: FusionList?

  @Option(
    help: ArgumentHelp(
      "naive takes one plain kernel for all products; a list measures each. Without matrix units.",
      valueName: "naive,sbi"))
  var linear: ChoiceList<StepMethod.Linear>?

  @Option(
    help: ArgumentHelp(
      "Products of many tokens: on matrix units, those of up to 64 tokens directly or all through shared memory, in float16 or in bytes; in tiles in registers; or in columns, as those of few tokens; a list measures each. (default: the first of them that the device can do)",
      valueName: "direct,matrix,bytes,tiles,columns"))
  var gemm: ChoiceList<StepMethod.Gemm>?

  /// Whether anything is asked for.
  var isGiven: Bool { fusion != nil || linear != nil || gemm != nil }

  /// Every combination that is asked for. What belongs to neither is left out of comparisons of fusion and of products
  /// of few tokens.
  var methods: [StepMethod] {
    let others: [StepMethod.Gemm?] = fusion == nil && linear == nil ? [nil] : [.columns]
    return (fusion?.values ?? [true]).flatMap { fuses in
      (linear?.values ?? [.sbi]).flatMap { linear in
        (gemm?.values ?? others).map { StepMethod(fuses: fuses, linear: linear, gemm: $0) }
      }
    }
  }

  func validate() throws {
    if gemm != nil, methods.contains(where: { !$0.isFast }) {
      throw ValidationError("--gemm belongs to fused steps: leave out --fusion off and --linear naive")
    }
  }
}

/// "off,on".
struct FusionList: ExpressibleByArgument {
  var values: [Bool] = []

  init?(argument: String) {
    for part in argument.split(separator: ",", omittingEmptySubsequences: false) {
      guard part == "on" || part == "off" else { return nil }
      values.append(part == "on")
    }
  }
}

extension StepMethod {
  var fusionText: String { fuses ? "on" : "off" }
  var gemmText: String { gemm?.rawValue ?? "usual" }
}
