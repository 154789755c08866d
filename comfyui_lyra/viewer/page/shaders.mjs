// One splat as a quad, as our rasteriser's mode "ewa" draws it (kernels_glue/projection.py, compositing.py): projected to
// first order, blurred by 0.3 px^2, opacity not changed by that, and cut off where less than 1/255 is left.

export const VERTEX = `#version 300 es
precision highp float;
precision highp int;
uniform highp usampler2D splats;
uniform highp sampler2D chunks;
uniform mat3 view;
uniform vec3 eye, origin;
uniform float unit;
uniform vec2 focal, principal, size;
layout(location = 0) in uint index;
out vec2 offset;
flat out vec3 conic;
flat out vec4 color;

const float BLUR = 0.3, MARGIN = 0.3, CUT = 1.0 / 255.0;

mat3 rotation(vec4 q) {
  float w = q.x, x = q.y, y = q.z, z = q.w;
  return mat3(
    1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z), 2.0 * (x * z - w * y),
    2.0 * (x * y - w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z + w * x),
    2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y));
}

vec4 quaternion(uint largest, vec3 others) {
  float rest = sqrt(max(0.0, 1.0 - dot(others, others)));
  if (largest == 0u) return vec4(rest, others);
  if (largest == 1u) return vec4(others.x, rest, others.yz);
  if (largest == 2u) return vec4(others.xy, rest, others.z);
  return vec4(others, rest);
}

void main() {
  gl_Position = vec4(0.0, 0.0, 2.0, 1.0);
  uvec4 word = texelFetch(splats, ivec2(index & 2047u, index >> 11), 0);
  uint chunk = (index >> 8) * 2u;
  vec4 low = texelFetch(chunks, ivec2(chunk & 2047u, chunk >> 11), 0);
  vec4 high = texelFetch(chunks, ivec2((chunk + 1u) & 2047u, (chunk + 1u) >> 11), 0);
  vec3 share = vec3(word.x & 32767u, (word.x >> 15) & 32767u, word.y & 65535u) / vec3(32767.0, 32767.0, 65535.0);
  vec3 far = mix(low.xyz, high.xyz, share);
  vec3 centre = view * (origin + sign(far) * (exp(abs(far)) - 1.0) * unit - eye);
  if (centre.z <= 0.0) return;
  vec3 scales = exp(mix(vec3(low.w), vec3(high.w), vec3((word.z >> 8) & 255u, (word.z >> 16) & 255u, word.z >> 24) / 255.0));
  vec3 others = (vec3((word.y >> 16) & 255u, word.y >> 24, word.z & 255u) / 255.0 - 0.5) * 1.41421356;
  mat3 axes = view * rotation(quaternion(word.x >> 30, others));
  color = vec4(word.w & 255u, (word.w >> 8) & 255u, (word.w >> 16) & 255u, word.w >> 24) / 255.0;

  vec2 margin = MARGIN * size / 2.0;
  vec2 slope = clamp(centre.xy / centre.z, -(principal + margin) / focal, (size - principal + margin) / focal);
  vec3 deep = vec3(axes[0].z, axes[1].z, axes[2].z) * scales;
  vec3 across = (vec3(axes[0].x, axes[1].x, axes[2].x) * scales - slope.x * deep) * focal.x / centre.z;
  vec3 down = (vec3(axes[0].y, axes[1].y, axes[2].y) * scales - slope.y * deep) * focal.y / centre.z;
  float a = dot(across, across) + BLUR, b = dot(across, down), c = dot(down, down) + BLUR;
  float area = a * c - b * b;
  if (!(area > 0.0)) return;
  conic = vec3(-c / 2.0, b, -a / 2.0) / area;

  float middle = (a + c) / 2.0;
  float spread = length(vec2((a - c) / 2.0, b));
  vec2 main = spread < 1e-6 * middle ? vec2(1.0, 0.0) : normalize(a > c ? vec2(a - middle + spread, b) : vec2(b, c - middle + spread));
  float reach = sqrt(2.0 * log(max(1.0, color.a / CUT))) + 0.01;
  vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1) * 2.0 - 1.0;
  vec2 half_size = reach * sqrt(vec2(middle + spread, max(middle - spread, 0.0)));
  offset = corner.x * half_size.x * main + corner.y * half_size.y * vec2(-main.y, main.x);
  vec2 place = centre.xy / centre.z * focal + principal;
  vec2 bound = reach * sqrt(vec2(a, c));
  if (any(lessThan(place + bound, vec2(0.0))) || any(greaterThan(place - bound, size))) return;
  gl_Position = vec4((place + offset) / size * vec2(2.0, -2.0) + vec2(-1.0, 1.0), 0.0, 1.0);
}`

export const FRAGMENT = `#version 300 es
precision highp float;
in vec2 offset;
flat in vec3 conic;
flat in vec4 color;
out vec4 pixel;
void main() {
  float power = conic.x * offset.x * offset.x + conic.y * offset.x * offset.y + conic.z * offset.y * offset.y;
  float alpha = min(0.999, color.a * exp(power));
  if (alpha < 1.0 / 255.0) discard;
  pixel = vec4(color.rgb * alpha, alpha);
}`
