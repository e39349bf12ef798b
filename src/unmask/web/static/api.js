// Talks to the JSON API.

/** What went wrong with a request: status 0 means that no answer came. */
export class Problem extends Error {
  constructor(status, detail, retryAfter = null) {
    super(detail);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** The answer's JSON, or null where it has none. Throws Problem. */
export async function request(address, method = "GET", body = undefined) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(address, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw problem(0, "", null);
  }
  const text = await answer.text();
  if (!answer.ok) throw problem(answer.status, text, answer.headers.get("Retry-After"));
  return text ? JSON.parse(text) : null;
}

/** The Problem of an answer, with what the server says of it or else with words of our own. */
export function problem(status, text, retryAfter) {
  const wait = Number.parseInt(retryAfter ?? "", 10);
  const said = status === 401 ? null : detail(text); // which tells programs what to send
  return new Problem(status, said || words(status), Number.isNaN(wait) ? null : wait);
}

function detail(text) {
  try {
    return JSON.parse(text).detail;
  } catch {
    return null; // a proxy in between answers with a page
  }
}

function words(status) {
  if (status === 0) return "The server cannot be reached. Check the connection and try again.";
  if (status === 401) return "You are signed out. Reload the page and sign in.";
  if (status === 404) return "It is not there any more.";
  if (status === 413) return "The file is too large.";
  if (status === 415) return "This is no video and no picture that can be judged.";
  if (status === 429) return "Too much at once.";
  return "Something broke on the server. Try again in a moment.";
}

export const sleep = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));
