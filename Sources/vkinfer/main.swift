import Engine
let a = CommandLine.arguments
let model = try LanguageModel(path: a[1])
var o = EngineOptions(); o.contextLength = 1024; o.maxOutputs = 64
let e = try Engine(model: model, options: o)
if a[2] == "ppl" {
  let t = try readFile(a[3])
  let r = try e.perplexity(of: try model.tokens(of: t, addSpecial: false, parseSpecial: false), chunkLength: 512) { d, n, s in print(d, n, s); return d < Int(a[4])! }
  print(r)
} else {
var r = GenerationRequest(prompt: try model.tokens(of: a[2])); r.maxTokens = Int(a[3])
let g = try e.generate(r, onText: { print($0, terminator: "") })
print(); print(g.promptTokenCount, g.promptTokensPerSecond, g.decodeTokensPerSecond, g.timeToFirstToken, g.tokens)
}
import Glibc
func readFile(_ p: String) throws -> String { let f = fopen(p, "r")!; var b = [UInt8](repeating: 0, count: 1<<20); let n = fread(&b, 1, b.count, f); return String(decoding: b[..<n], as: UTF8.self) }
