// Packed moments (see pack.py): deflated bytes to what the graphics card takes, and to places for sorting.

export const ROW = 2048 // texels in a row of a texture

export async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'))
  return new Uint8Array(await new Response(stream).arrayBuffer())
}

// {count, origin [3], unit, chunks f32 [C * 8], words u32 [4 * N]}, both padded to whole rows of a texture
export function unpack(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const count = view.getUint32(0, true)
  const floats = (from, n) => Array.from({ length: n }, (_, i) => view.getFloat32(from + 4 * i, true))
  const parts = Math.ceil(count / 256)
  const start = 32 + 32 * parts
  if (bytes.length !== start + 16 * count) throw new Error(`a moment of ${count} splats has ${bytes.length} bytes`)
  const chunks = new Float32Array(4 * padded(2 * parts))
  chunks.set(floats(32, 8 * parts))
  const words = new Uint32Array(4 * padded(count))
  const out = new Uint8Array(words.buffer)
  for (let plane = 0; plane < 16; plane++) {
    const from = start + plane * count
    for (let i = 0; i < count; i++) out[16 * i + plane] = bytes[from + i]
  }
  return { count, origin: floats(4, 3), unit: view.getFloat32(16, true), chunks, words }
}

const padded = (texels) => ROW * Math.max(1, Math.ceil(texels / ROW))

// Places f32 [3 * N] of a moment
export function places({ count, origin, unit, chunks, words }) {
  const found = new Float32Array(3 * count)
  for (let i = 0; i < count; i++) {
    const chunk = 8 * (i >>> 8)
    const a = words[4 * i]
    const shares = [(a & 32767) / 32767, ((a >>> 15) & 32767) / 32767, (words[4 * i + 1] & 65535) / 65535]
    for (let j = 0; j < 3; j++) {
      const c = chunks[chunk + j] + shares[j] * (chunks[chunk + 4 + j] - chunks[chunk + j])
      found[3 * i + j] = origin[j] + Math.sign(c) * Math.expm1(Math.abs(c)) * unit
    }
  }
  return found
}
