// Keeps buffers that JavaScript functions allocate; see jit.rs.
const kept = [];
function keepBuffer(size) { kept.push(Buffer.allocUnsafeSlow(size)); }
function handleRequest(number) { keepBuffer(45000 + 2 * (number % 3)); return number; }
let requests = 0;
setInterval(() => {
  for (let n = 0; n < 20; n++) handleRequest(requests++);
  if (kept.length > 2000) kept.length = 0;
}, 1);
setTimeout(() => console.log(`ready ${process.pid}`), 1500);
// How many so far, when asked.
process.stdin.on('data', () => console.log(requests)).on('end', () => process.exit(0));
