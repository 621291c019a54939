// What the browser keeps of this page. Everything works without, for as long as the page is open.

// The value stored under a name, or null: nothing was, it is not what valid() accepts, or storage is switched off.
export function load(name, valid) {
  try {
    const value = JSON.parse(localStorage.getItem(`bitnet.${name}`));
    return value !== null && valid(value) ? value : null;
  } catch {
    return null;
  }
}

// Stores a value; false if the browser has no room for it or refuses.
export function save(name, value) {
  try {
    localStorage.setItem(`bitnet.${name}`, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

// The API key is kept for this tab only and gone when it closes.
export const key = {
  get() {
    try {
      return sessionStorage.getItem("bitnet.key") ?? this.unsaved;
    } catch {
      return this.unsaved;
    }
  },
  set(value) {
    this.unsaved = value;
    try {
      if (value) sessionStorage.setItem("bitnet.key", value);
      else sessionStorage.removeItem("bitnet.key");
    } catch {
      // Kept in this object alone.
    }
  },
  unsaved: "",
};
