// The server's API, as far as the page needs it: OpenAI's wire format, streamed as server-sent events.

export class ApiError extends Error {
  // status: of the HTTP response, 0 if there was none; retryAfter: seconds that the server asks for, else null.
  constructor(message, status = 0, retryAfter = null) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

// What the server serves: {id, max_model_len, chat}; chat is false if the model has no chat template.
export async function servedModel(key) {
  const response = await request("v1/models", key, {});
  const { data } = parse(await response.text());
  return data[0];
}

// Yields the pieces {text, finish, usage} of a reply; each part of a piece may be missing. Aborting the signal raises AbortError.
export async function* reply(mode, body, key, signal) {
  const response = await request(mode === "chat" ? "v1/chat/completions" : "v1/completions", key, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const chunk = parse(data);
    if (chunk.error) throw new ApiError(chunk.error.message);
    const choice = chunk.choices?.[0]; // none in the last one, with the usage
    yield {
      text: choice?.delta?.content ?? choice?.text ?? "",
      finish: choice?.finish_reason ?? null,
      usage: chunk.usage ?? null,
    };
  }
  throw new ApiError("The connection ended before the reply did.");
}

async function request(path, key, options) {
  const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached.");
  }
  if (response.ok) return response;
  const seconds = Number(response.headers.get("Retry-After"));
  throw new ApiError(await reasonOf(response), response.status, seconds > 0 ? seconds : null);
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new ApiError("The server sends what is no JSON.");
  }
}

async function reasonOf(response) {
  const fallback = `The server answers ${response.status} ${response.statusText}`.trimEnd() + ".";
  try {
    return (await response.json()).error.message || fallback;
  } catch {
    return fallback; // not ours: from a proxy between
  }
}

// The data of each event of a stream. Lines may end with \n, \r or \r\n, and anything may be cut in two between reads.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  try {
    for (;;) {
      const { value, done } = await read(reader);
      if (done) return;
      const lines = (rest + value).split(/\r\n|\r(?!$)|\n/);
      rest = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data:")) {
          data.push(line.slice(line[5] === " " ? 6 : 5));
        } else if (line === "" && data.length) {
          yield data.join("\n");
          data = [];
        } // else a comment, which keeps the connection open, or a field that says nothing about a reply
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function read(reader) {
  try {
    return await reader.read();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The connection broke off.");
  }
}
