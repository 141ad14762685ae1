/// The workgroup size of a SPIR-V module's first entry point with the given specialization (by `constant_id`).
///
/// Handles literal sizes, and sizes made of constants and specialization constants (`local_size_x_id`); nil for
/// anything else and for damaged words. SPIR-V specification, sections 2.3, 3.6 and 3.20.
func workgroupSize(of words: [UInt32], specialization: [UInt32]) -> (x: Int, y: Int, z: Int)? {
  let magic: UInt32 = 0x0723_0203
  guard words.count > 5, words[0] == magic else { return nil }
  var literal: [UInt32]?
  var identified: [UInt32]?
  var workgroupSizeConstant: UInt32?
  var specializationIDs: [UInt32: UInt32] = [:]
  var constants: [UInt32: UInt32] = [:]
  var composites: [UInt32: [UInt32]] = [:]

  var position = 5
  var lastOperation: UInt32 = 0
  while position < words.count {
    let length = Int(words[position] >> 16)
    guard length > 0, position + length <= words.count else { return nil }
    let operands = Array(words[position + 1..<position + length])
    lastOperation = words[position] & 0xffff
    switch (lastOperation, operands.count) {
    case (16, 5) where operands[1] == 17:  // OpExecutionMode, LocalSize
      literal = literal ?? Array(operands[2...])
    case (331, 5) where operands[1] == 38:  // OpExecutionModeId, LocalSizeId
      identified = identified ?? Array(operands[2...])
    case (71, 3) where operands[1] == 1:  // OpDecorate, SpecId
      specializationIDs[operands[0]] = operands[2]
    case (71, 3) where operands[1] == 11 && operands[2] == 25:  // OpDecorate, BuiltIn, WorkgroupSize
      workgroupSizeConstant = operands[0]
    case (43, 3), (50, 3):  // OpConstant, OpSpecConstant of 32 bits
      let id = specializationIDs[operands[1]].flatMap { Int(exactly: $0) }
      if let id, id < specialization.count {
        constants[operands[1]] = specialization[id]
      } else {
        constants[operands[1]] = operands[2]
      }
    case (44, 5), (51, 5):  // OpConstantComposite, OpSpecConstantComposite of three
      composites[operands[1]] = Array(operands[2...])
    default: break
    }
    position += length
  }

  // OpFunctionEnd: every module ends with a function.
  guard lastOperation == 56 else { return nil }
  // The built-in constant wins over the execution mode.
  var sizes = literal
  if let ids = workgroupSizeConstant.flatMap({ composites[$0] }) ?? identified {
    sizes = ids.compactMap { constants[$0] }
  }
  guard let sizes, sizes.count == 3, sizes.allSatisfy({ $0 > 0 && $0 < 1 << 16 }) else { return nil }
  return (Int(sizes[0]), Int(sizes[1]), Int(sizes[2]))
}
