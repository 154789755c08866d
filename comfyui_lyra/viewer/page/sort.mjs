// Splats from back to front, in a worker: a counting sort by the logarithm of their depth.

import { places } from './unpack.mjs'

const STEP = 9 // low bits of a depth that do not count: 16384 steps an octave

// Indices of the places [3 * N] between near and far along `axis` [3] from `eye` [3], farthest first
export function backToFront(xyz, axis, eye, near, far, scratch = {}) {
  const count = xyz.length / 3
  if (!(scratch.keys?.length >= count)) scratch.keys = new Uint32Array(count)
  const bits = new Uint32Array(1)
  const real = new Float32Array(bits.buffer)
  const key = (depth) => {
    real[0] = depth
    return bits[0] >>> STEP
  }
  const [first, last] = [key(near), key(far)]
  const starts = new Uint32Array(last - first + 3)
  const [x, y, z] = axis
  const shift = -(x * eye[0] + y * eye[1] + z * eye[2])
  const keys = scratch.keys
  for (let i = 0, j = 0; i < count; i++, j += 3) {
    const depth = x * xyz[j] + y * xyz[j + 1] + z * xyz[j + 2] + shift
    const place = depth >= near && depth <= far ? last - key(depth) + 1 : 0
    keys[i] = place
    if (place) starts[place + 1]++
  }
  for (let k = 1; k < starts.length; k++) starts[k] += starts[k - 1]
  const order = new Uint32Array(starts[starts.length - 1])
  for (let i = count - 1; i >= 0; i--) if (keys[i]) order[starts[keys[i]]++] = i // of equals the first lies in front
  return order
}

function serve(scope) {
  const held = new Map()
  const scratch = {}
  scope.onmessage = ({ data }) => {
    if (data.add) held.set(data.id, places(data.add))
    else if (data.drop) held.delete(data.id)
    else if (held.has(data.id)) {
      const order = backToFront(held.get(data.id), data.axis, data.eye, data.near, data.far, scratch)
      scope.postMessage({ id: data.id, order, camera: data.camera }, [order.buffer])
    }
  }
}

// A worker made of its own source, so that it starts from a file too
export function makeSorter() {
  const source = `const STEP = ${STEP}\n${places}\n${backToFront}\n(${serve})(self)`
  const url = URL.createObjectURL(new Blob([source], { type: 'text/javascript' }))
  const worker = new Worker(url)
  URL.revokeObjectURL(url)
  return worker
}
