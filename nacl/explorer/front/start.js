// Which explorer a model asks for, and a model that holds its values where there is no kernel.

const EXPLORERS = { neighbourhood, penalty, training };

function render({ model, el }) {
  return EXPLORERS[model.get("kind")](model, el);
}

function standIn(state) {
  const listeners = {};
  return {
    get: (name) => state[name],
    set(name, value) {
      if (state[name] === value) return;
      state[name] = value;
      for (const listener of listeners[`change:${name}`] ?? []) listener();
    },
    on: (event, listener) => { (listeners[event] ??= []).push(listener); },
    save_changes() {},
  };
}
