// Python in a worker: Pyodide and the packages that minidl needs come from Pyodide's public server, minidl
// itself from the archive beside this file.

const PYODIDE = "https://cdn.jsdelivr.net/pyodide/v314.0.8/full/";
const PACKAGES = ["numpy", "scipy", "matplotlib", "safetensors", "tqdm", "threadpoolctl", "platformdirs"];

// Runs a block as a notebook would: what it prints is shown at once, then the value of its last line.
const RUNNER = `
import base64, os, sys, traceback
os.environ["MPLBACKEND"] = "agg"
from pyodide.code import eval_code
names = {"__name__": "__main__"}

def png_of(value):
    made = value._repr_png_()
    data, size = made if isinstance(made, tuple) else (made, {})
    return base64.b64encode(data).decode(), size.get("width", 640)

def run(code, show_picture):
    try:
        value = eval_code(code, names, filename="<block>")
        if hasattr(value, "_repr_png_"):
            show_picture(*png_of(value))
        elif value is not None:
            print(repr(value))
    except BaseException as error:
        # The frames above the block are this page's.
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename != "<block>":
            trace = trace.tb_next
        traceback.print_exception(type(error), error, trace)
    finally:
        sys.stdout.flush(); sys.stderr.flush()
run
`;

const send = (kind, content) => postMessage({ kind, content });

async function begin() {
  send("status", "Loading Python and NumPy: tens of megabytes, the first time …");
  let loadPyodide;
  try {
    ({ loadPyodide } = await import(`${PYODIDE}pyodide.mjs`));
  } catch (error) {
    throw new Error(`Pyodide could not be loaded from ${PYODIDE}: is there a network? (${error.message})`);
  }
  const python = await loadPyodide({ indexURL: PYODIDE });
  await python.loadPackage(PACKAGES, { messageCallback: () => {} });
  const archive = await fetch(new URL("minidl.zip", import.meta.url));
  if (!archive.ok) throw new Error(`minidl.zip: ${archive.status} ${archive.statusText}`);
  python.unpackArchive(await archive.arrayBuffer(), "zip", {
    extractDir: python.runPython("import sysconfig; sysconfig.get_path('purelib')"),
  });
  python.setStdout({ batched: (line) => send("text", `${line}\n`) });
  python.setStderr({ batched: (line) => send("error", `${line}\n`) });
  const run = python.runPython(RUNNER);
  send("status", "");
  return (code) => run(code, (png, width) => send("picture", { png, width }));
}

let ready = null;

onmessage = async ({ data }) => {
  try {
    ready ??= begin();
    (await ready)(data);
    send("done");
  } catch (error) {
    send("failure", error.message);
  }
};
