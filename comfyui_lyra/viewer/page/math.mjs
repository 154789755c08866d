// Vectors, rotations and paths of cameras. OpenCV axes: x right, y down, z ahead. A camera is {p, r, zoom}: its place
// [3], its camera-to-world rotation by rows [9], and its focal length as a multiple of the first camera's.

export const add = (a, b, k = 1) => a.map((v, i) => v + k * b[i])
export const dot = (a, b) => a.reduce((sum, v, i) => sum + v * b[i], 0)
export const length = (a) => Math.sqrt(dot(a, a))
export const column = (m, j) => [m[j], m[3 + j], m[6 + j]]
export const turned = (m, v) => [0, 3, 6].map((i) => m[i] * v[0] + m[i + 1] * v[1] + m[i + 2] * v[2])
export const transposed = (m) => [m[0], m[3], m[6], m[1], m[4], m[7], m[2], m[5], m[8]]
export const times = (a, b) => {
  const rows = [0, 1, 2].map((j) => turned(a, column(b, j)))
  return [0, 1, 2].flatMap((i) => rows.map((row) => row[i]))
}

export function about(axis, angle) {
  const [x, y, z] = axis.map((v) => v / length(axis))
  const [s, c] = [Math.sin(angle), Math.cos(angle)]
  const k = 1 - c
  return [
    c + k * x * x, k * x * y - s * z, k * x * z + s * y,
    k * x * y + s * z, c + k * y * y, k * y * z - s * x,
    k * x * z - s * y, k * y * z + s * x, c + k * z * z
  ]
}

// wxyz of a rotation, and back
export function toQuat(m) {
  const d = [m[0] + m[4] + m[8], m[0] - m[4] - m[8], m[4] - m[0] - m[8], m[8] - m[0] - m[4]].map((v) => v + 1)
  const off = { wx: m[7] - m[5], wy: m[2] - m[6], wz: m[3] - m[1], xy: m[1] + m[3], xz: m[2] + m[6], yz: m[5] + m[7] }
  const rows = [
    [d[0], off.wx, off.wy, off.wz], [off.wx, d[1], off.xy, off.xz],
    [off.wy, off.xy, d[2], off.yz], [off.wz, off.xz, off.yz, d[3]]
  ]
  const best = rows[d.indexOf(Math.max(...d))]
  return best.map((v) => v / length(best))
}

export function fromQuat(q) {
  const [w, x, y, z] = q.map((v) => v / length(q))
  return [
    1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
    2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
    2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)
  ]
}

export function fromRows(c2w, zoom = 1) {
  const at = (i, j) => c2w[4 * i + j]
  return { p: [at(0, 3), at(1, 3), at(2, 3)], r: [0, 1, 2].flatMap((i) => [at(i, 0), at(i, 1), at(i, 2)]), zoom }
}

export const toRows = ({ p, r }) => [...r.slice(0, 3), p[0], ...r.slice(3, 6), p[1], ...r.slice(6, 9), p[2], 0, 0, 0, 1]

// slopes at equally spaced knots of the cubic spline that starts and ends at rest (Thomas' algorithm)
export function slopes(values) {
  const n = values.length
  const [upper, right] = [new Array(n).fill(0), new Array(n).fill(0)]
  for (let i = 1; i < n - 1; i++) {
    const below = 4 - upper[i - 1]
    upper[i] = 1 / below
    right[i] = (3 * (values[i + 1] - values[i - 1]) - right[i - 1]) / below
  }
  const found = new Array(n).fill(0)
  for (let i = n - 2; i > 0; i--) found[i] = right[i] - upper[i] * found[i + 1]
  return found
}

// Cameras through keyframes as `through_keyframes` of the pack makes them, easing "smooth": at t in 0..keys - 1.
export function spline(keys) {
  if (keys.length < 2) return () => keys[0]
  const quats = []
  for (const key of keys) {
    const q = toQuat(key.r)
    quats.push(quats.length && dot(q, quats.at(-1)) < 0 ? q.map((v) => -v) : q)
  }
  const rows = keys.map((key, i) => [...key.p, ...quats[i]])
  const tangents = rows[0].map((_, j) => slopes(rows.map((row) => row[j])))
  return (t) => {
    const i = Math.min(Math.max(Math.floor(t), 0), keys.length - 2)
    const s = Math.min(Math.max(t - i, 0), 1)
    const ease = s * s * (3 - 2 * s)
    const at = rows[0].map((_, j) => {
      const [a, b, u, v] = [rows[i][j], rows[i + 1][j], tangents[j][i], tangents[j][i + 1]]
      return a + (b - a) * ease + s * (1 - s) * ((1 - s) * u - s * v)
    })
    return { p: at.slice(0, 3), r: fromQuat(at.slice(3)), zoom: keys[i].zoom + (keys[i + 1].zoom - keys[i].zoom) * ease }
  }
}

// A camera between two others, t in 0..1
export const between = (a, b, t) => {
  const [from, to] = [toQuat(a.r), toQuat(b.r)]
  const sign = dot(from, to) < 0 ? -1 : 1
  const r = fromQuat(from.map((v, i) => v * (1 - t) + sign * to[i] * t))
  return { p: a.p.map((v, i) => v + (b.p[i] - v) * t), r, zoom: a.zoom + (b.zoom - a.zoom) * t }
}

// Focal lengths and principal point in pixels of a canvas in which the first camera's picture just fits
export function lens(start, zoom, width, height) {
  const [fx, fy, cx, cy] = start.K
  const s = Math.min(width / start.width, height / start.height)
  return {
    focal: [fx * s * zoom, fy * s * zoom],
    principal: [width / 2 + (cx - start.width / 2) * s, height / 2 + (cy - start.height / 2) * s],
    size: [width, height],
    frame: [start.width * s, start.height * s]
  }
}

// Where a point falls on the canvas [x, y, depth]
export function project(point, camera, { focal, principal }) {
  const [x, y, z] = turned(transposed(camera.r), add(point, camera.p, -1))
  return [(x / z) * focal[0] + principal[0], (y / z) * focal[1] + principal[1], z]
}
