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
  var linear: LinearList?

  /// Whether anything is asked for.
  var isGiven: Bool { fusion != nil || linear != nil }

  /// Every combination that is asked for. Matrix units, which belong to neither, are left out of comparisons.
  var methods: [StepMethod] {
    (fusion?.values ?? [true]).flatMap { fuses in
      (linear?.values ?? [.sbi]).map { linear in
        StepMethod(fuses: fuses, linear: linear, usesMatrixUnits: !isGiven)
      }
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

/// "naive,sbi".
struct LinearList: ExpressibleByArgument {
  var values: [StepMethod.Linear] = []

  init(_ values: [StepMethod.Linear]) {
    self.values = values
  }

  var defaultValueDescription: String { values.map(\.rawValue).joined(separator: ",") }

  init?(argument: String) {
    for part in argument.split(separator: ",", omittingEmptySubsequences: false) {
      guard let value = StepMethod.Linear(rawValue: String(part)) else { return nil }
      values.append(value)
    }
  }
}

extension StepMethod {
  var fusionText: String { fuses ? "on" : "off" }
}
