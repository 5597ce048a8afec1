// The server as the page of a search asks it: with its token, and what went wrong in a sentence.

export class Problem extends Error {
  constructor(message, status, wait) {
    super(message);
    Object.assign(this, { status, wait });
  }
}

// Not in sessionStorage: a hit opened in another tab needs it too. It is worth nothing once the server has ended.
export const store = {
  get: (name) => { try { return localStorage.getItem(name); } catch { return store[`.${name}`]; } },
  set: (name, value) => { store[`.${name}`] = value; try { localStorage.setItem(name, value); } catch { /* for this page only */ } },
};

export async function ask(path, body, signal) {
  let answer;
  try {
    answer = await fetch(path, {
      method: body ? "POST" : "GET",
      body: body && JSON.stringify(body),
      headers: store.get("token") ? { Authorization: `Bearer ${store.get("token")}` } : {},
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The server does not answer. Run `embedcode web` again, and open the link that it prints.", 0);
  }
  if (answer.headers.has("X-Token")) store.set("token", answer.headers.get("X-Token"));
  const value = await answer.json().catch((error) => {
    if (error.name === "AbortError") throw error;
    return null;
  });
  if (answer.ok && value) return value;
  const said = typeof value?.message === "string" && value.message;
  const sentence = said || `what answered (${answer.status}) is not the server: something before it failed. Try again.`;
  const after = answer.headers.get("Retry-After"); // of a proxy it may be a date
  const wait = after && (/^[1-9]\d{0,3}$/.test(after) ? +after : 2);
  throw new Problem(sentence[0].toUpperCase() + sentence.slice(1), answer.status, wait);
}
