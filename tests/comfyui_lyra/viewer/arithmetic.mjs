// The page's arithmetic, without a browser: node --test arithmetic.mjs; TOLD names what the pack itself computes.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'

const page = '../../../comfyui_lyra/viewer/page'
const { about, between, column, dot, fromQuat, fromRows, lens, length, project, spline, times, toQuat, toRows, transposed, turned } =
  await import(`${page}/math.mjs`)
const { backToFront } = await import(`${page}/sort.mjs`)
const { look, orbit, shift } = await import(`${page}/controls.mjs`)
const { plan } = await import(`${page}/store.mjs`)
const { places } = await import(`${page}/unpack.mjs`)

const near = (a, b, error = 1e-9) => a.forEach((v, i) => assert.ok(Math.abs(v - b[i]) <= error, `${a} is not ${b}`))
const EYE = [1, 0, 0, 0, 1, 0, 0, 0, 1]
const turn = times(about([0, 1, 0], 0.4), about([1, 2, 3], 1.1))

test('a quarter turn about down takes ahead to the right', () => near(turned(about([0, 1, 0], Math.PI / 2), [0, 0, 1]), [1, 0, 0]))

test('quaternions and rotations are each other\'s inverse, also of half turns', () => {
  for (const r of [turn, about([1, 0, 0], Math.PI), about([0, 1, 0], Math.PI), about([0, 0, 1], Math.PI), EYE])
    near(fromQuat(toQuat(r)), r)
  near(times(turn, transposed(turn)), EYE)
})

test('cameras survive being rows', () => {
  const camera = { p: [1, 2, 3], r: turn, zoom: 1.5 }
  near(fromRows(toRows(camera), 1.5).r, turn)
  near(fromRows(toRows(camera)).p, camera.p)
})

test('the path through keyframes is the pack\'s own', () => {
  const told = JSON.parse(readFileSync(process.env.TOLD, 'utf8'))
  const path = spline(told.keys.map(({ c2w, zoom }) => fromRows(c2w, zoom)))
  const last = told.keys.length - 1
  told.path.forEach((c2w, i) => {
    const camera = path((i / (told.path.length - 1)) * last)
    near(toRows(camera), c2w, 1e-5)
    near([camera.zoom], [told.zooms[i]], 1e-5)
  })
})

test('half way between two cameras is half of the turn', () => {
  const half = between({ p: [0, 0, 0], r: EYE, zoom: 1 }, { p: [2, 0, 0], r: about([0, 1, 0], 1), zoom: 2 }, 0.5)
  near(half.p, [1, 0, 0])
  near(half.r, about([0, 1, 0], 0.5))
})

test('the first picture fits into any window, and points fall where K says', () => {
  const start = { K: [100, 110, 52, 30], width: 100, height: 60 }
  const found = lens(start, 1, 100, 60)
  near(project([0.1, 0.2, 2], { p: [0, 0, 0], r: EYE }, found), [100 * 0.05 + 52, 110 * 0.1 + 30, 2])
  const wide = lens(start, 2, 400, 120)
  near(wide.focal, [400, 440])
  near(wide.principal, [200 + 4, 60])
  near(wide.frame, [200, 120])
})

test('orbiting keeps what is looked at and how far it is', () => {
  const camera = { p: [1, 2, 3], r: turn, zoom: 1 }
  const target = (c) => c.p.map((v, i) => v + 2 * column(c.r, 2)[i])
  const found = orbit(camera, 0.3, -0.2, [0, 1, 0], 2)
  near(target(found), target(camera))
  assert.ok(length(found.p.map((v, i) => v - camera.p[i])) > 0.1)
})

test('a look goes neither over the top nor stuck there', () => {
  let camera = { p: [0, 0, 0], r: EYE, zoom: 1 }
  for (let i = 0; i < 100; i++) camera = look(camera, 0.01, 0.05, [0, 1, 0])
  assert.ok(dot(column(camera.r, 1), [0, 1, 0]) > 0)
  const back = look(camera, 0, -0.05, [0, 1, 0])
  assert.ok(Math.abs(column(back.r, 2)[1]) < Math.abs(column(camera.r, 2)[1]))
})

test('shifting follows the camera\'s own axes', () => near(shift({ p: [0, 0, 0], r: about([0, 1, 0], Math.PI / 2) }, [0, 0, 1]).p, [1, 0, 0]))

test('splats are sorted from back to front, those out of reach left out, equals with the first in front', () => {
  const xyz = new Float32Array(3 * 4000)
  for (let i = 0; i < 4000; i++) xyz.set([Math.sin(i), Math.cos(3 * i), i % 7 === 0 ? 5 : 30 * Math.sin(i * 0.37)], 3 * i)
  const [axis, eye] = [[0, 0, 1], [0, 0, -1]]
  const order = backToFront(xyz, axis, eye, 0.1, 25)
  const depth = (i) => xyz[3 * i + 2] + 1
  const kept = Array.from({ length: 4000 }, (_, i) => i).filter((i) => depth(i) >= 0.1 && depth(i) <= 25)
  assert.deepEqual([...order].sort((a, b) => a - b), kept)
  for (let i = 1; i < order.length; i++) {
    assert.ok(depth(order[i]) <= depth(order[i - 1]) * (1 + 1e-4))
    if (depth(order[i]) === depth(order[i - 1])) assert.ok(order[i] < order[i - 1])
  }
})

test('places of a moment are logarithms from the first camera', () => {
  const chunks = new Float32Array([-1, 0, 0, 0, 1, 2, 4, 0])
  const words = new Uint32Array([32767 | (16384 << 15), 65535, 0, 0])
  const [x, y, z] = places({ count: 1, origin: [1, 0, 0], unit: 2, chunks, words })
  near([x, y, z], [1 + 2 * Math.expm1(1), 2 * Math.expm1((2 * 16384) / 32767), 2 * Math.expm1(4)], 1e-4)
})

test('moments are loaded nearest in time first, and the farthest make way', () => {
  const sizes = [10, 10, 10, 10, 10]
  assert.deepEqual(plan(new Set(), sizes, 2, -1, 100, false), { next: 2, drop: [] })
  assert.equal(plan(new Set([2]), sizes, 2, 2, 100, true).next, 3)
  assert.equal(plan(new Set([3, 4]), sizes, 3, 3, 100, true).next, 0)
  assert.deepEqual(plan(new Set([0, 1, 2]), sizes, 4, 2, 30, false), { next: 4, drop: [0] })
  assert.equal(plan(new Set([2, 3]), sizes, 2, 2, 20, false), null)
  assert.deepEqual(plan(new Set([0]), sizes, 4, 0, 5, false), { next: 4, drop: [] })
  assert.equal(plan(new Set([0, 1, 2, 3, 4]), sizes, 2, 2, 100, false), null)
  assert.deepEqual(plan(new Set([0, 1, 2, 3, 4]), sizes, 3, 2, 20, false), { next: null, drop: [0, 1, 4] })
})
