import ArgumentParser
import Engine
import Kernels

/// How an engine computes products.
struct ProductOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "How products of many tokens are computed: direct, matrix, bytes, tiles or columns, see `bench --gemm`. (default: what is fastest on the devices that were measured)",
      valueName: "way"))
  var gemm: StepMethod.Gemm?

  func apply(to options: inout EngineOptions) { options.method.gemm = gemm }
}

extension StepMethod.Gemm: ExpressibleByArgument {}
