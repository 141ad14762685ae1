extension KernelCache.Variant {
  /// The shader and what its specialization constants stand for: "linear.q4_k subgroups 4, split 1, rows 4, ...".
  ///
  /// Constants that are not known here are given by number.
  package var text: String {
    let family = shader.prefix { $0 != "." }
    let names = Self.constants[String(family)] ?? []
    let values = specialization.enumerated().map { index, value in
      let name = index < names.count ? names[index] : "constant \(index)"
      if name == "epilogue", let epilogue = LinearKernel.Epilogue(rawValue: value) {
        return "\(name) \(epilogue)"
      }
      if name == "next", let form = ProductForm(rawValue: value) { return "\(name) \(form)" }
      return "\(name) \(value == .max ? "none" : "\(value)")"
    }
    return shader + " " + values.joined(separator: ", ")
      + (subgroupSize.map { ", subgroup size \($0)" } ?? "")
  }

  private static let linear = [
    "threads", "subgroups", "split", "rows", "columns", "unroll", "epilogue", "norm", "bias", "gather",
    "activation", "next", "chained", "staged",
  ]

  /// The constants of each shader in the order of their ids; the shaders say more.
  private static let constants: [String: [String]] = [
    "attention": ["threads", "head size", "group", "tile rows", "splits", "next", "cache"],
    "attention_decode": [
      "threads", "subgroups", "subgroup size", "head size", "group", "splits", "next", "parallel", "batch",
      "value batch", "chained", "cache", "key lanes", "least rounds", "ahead", "early",
    ],
    "attention_lanes": ["threads", "head size", "group", "tile rows", "rounds", "cache"],
    "cache_write": ["threads", "chained"],
    "copy": ["threads", "loads"],
    "elementwise": ["threads", "operation", "activation"],
    "embed": ["threads", "next"],
    "flash": [
      "threads", "subgroups", "head size", "fragments", "block", "m", "n", "k", "ahead", "held", "cache",
    ],
    "headnorm": ["threads"],
    "heads": ["threads", "rotate", "store"],
    "idle": ["threads"],
    "linear": linear,
    "linear_bytes": linear,
    "linear_naive": linear,
    "linear_rows": linear,
    "matrix": [
      "threads", "row subgroups", "token subgroups", "row fragments", "token fragments", "m", "n", "k",
      "step",
      "split", "band", "epilogue", "bias", "gather", "activation",
    ],
    "norm": ["threads", "heads"],
    "normalise": ["threads", "norm", "addend", "gather"],
    "quantise": ["threads"],
    "random": [
      "threads", "kind", "block bytes", "scale", "minimum", "signed", "copied", "doubled", "doubled end",
      "exponent",
    ],
    "read": ["threads", "loads"],
    "repack": ["threads"],
    "exchange": ["threads", "patience"],
    "sum": ["threads"],
    "sample": ["threads", "subgroups"],
    "score": ["threads", "subgroups"],
  ]
}
