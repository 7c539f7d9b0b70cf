// City time between two events of the live stream. Fed by main.

const clock = { city: 0, at: 0, speed: 1 };

/** From the live stream: unix seconds, and city seconds a second. */
export function setClock(city, speed) {
  Object.assign(clock, { city, speed, at: performance.now() });
}

/** City time now, unix seconds. */
export const cityNow = () => clock.city + ((performance.now() - clock.at) / 1000) * clock.speed;
export const citySpeed = () => clock.speed;
