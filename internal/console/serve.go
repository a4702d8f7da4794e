package console

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
)

//go:embed page
var files embed.FS

const (
	mostViewers = 32
	beat        = 250 * time.Millisecond // how often viewers are told, at most
	sign        = 15 * time.Second       // of life, so that nothing between closes a silent connection
)

// dirty is what has changed since viewers were told.
type dirty struct {
	entries                   map[uint64]*entry
	health, charts, incidents bool
}

func (d *dirty) entry(e *entry) {
	if d.entries == nil {
		d.entries = map[uint64]*entry{}
	}
	if len(d.entries) < 2*remembered {
		d.entries[e.Seq] = e
	}
}

// A view is what viewers are sent: everything at first, then what has changed.
type view struct {
	Now       int64          `json:"now"`
	Whole     bool           `json:"whole,omitempty"`
	Search    bool           `json:"search,omitempty"`
	Connected bool           `json:"connected"`
	Health    []durable      `json:"health,omitempty"`
	Charts    *chartsView    `json:"charts,omitempty"`
	Incidents []incidentView `json:"incidents,omitzero"`
	Webhooks  []*entry       `json:"webhooks,omitempty"`
}

func (c *Console) connected() bool { return c.o.JS.Conn().IsConnected() }

// whole is the state of now.
func (c *Console) whole() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	charts := c.charts.view(now)
	return encode(view{Now: now.UnixMilli(), Whole: true, Search: c.o.Trace != nil, Connected: c.connected(),
		Health: c.health, Charts: &charts, Incidents: c.incidents.view(c.seal), Webhooks: c.book.newest()})
}

// tell sends viewers what has changed, until ctx ends.
func (c *Console) tell(ctx context.Context) {
	t := time.NewTicker(beat)
	defer t.Stop()
	connected, minute := true, int64(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		now := time.Now()
		up := c.connected()
		c.mu.Lock()
		changed := up != connected || len(c.dirty.entries) > 0 || c.dirty.health || c.dirty.charts || c.dirty.incidents || now.Unix()/60 != minute
		if len(c.viewers) == 0 || !changed {
			if len(c.viewers) == 0 {
				c.dirty = dirty{}
			}
			c.mu.Unlock()
			continue
		}
		v := view{Now: now.UnixMilli(), Connected: up}
		if c.dirty.charts || now.Unix()/60 != minute {
			charts := c.charts.view(now)
			v.Charts = &charts
		}
		if c.dirty.health {
			v.Health = c.health
		}
		if c.dirty.incidents {
			v.Incidents = c.incidents.view(c.seal)
		}
		for _, e := range c.book.newest() {
			if c.dirty.entries[e.Seq] != nil {
				v.Webhooks = append(v.Webhooks, e)
			}
		}
		c.dirty, connected, minute = dirty{}, up, now.Unix()/60
		data := encode(v)
		for viewer := range c.viewers {
			select {
			case viewer <- data:
			default: // too slow: it comes again and begins anew
				delete(c.viewers, viewer)
				close(viewer)
			}
		}
		c.mu.Unlock()
	}
}

func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic("console: " + err.Error()) // our own types
	}
	return data
}

// Handler serves the page, its files and what it asks for, to those who may see it.
func (c *Console) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", c.page())
	mux.HandleFunc("GET /console.css", c.file("console.css", "text/css; charset=utf-8"))
	mux.HandleFunc("GET /console.js", c.file("console.js", "text/javascript; charset=utf-8"))
	mux.HandleFunc("GET /words.js", c.file("words.js", "text/javascript; charset=utf-8"))
	mux.HandleFunc("GET /icon.svg", c.file("icon.svg", "image/svg+xml"))
	mux.HandleFunc("GET /api/state", func(w http.ResponseWriter, r *http.Request) {
		c.look(r.Context())
		answer(w, c.whole())
	})
	mux.HandleFunc("GET /api/events", c.events)
	mux.HandleFunc("GET /api/whole", c.reveal)
	if c.o.Trace != nil {
		mux.HandleFunc("GET /api/trace", c.trace)
	}
	if c.o.Panel != nil {
		mux.Handle("/panel/", http.StripPrefix("/panel", c.o.Panel))
	}
	return c.guard.protect(mux)
}

func (c *Console) file(name, kind string) http.HandlerFunc {
	data, err := files.ReadFile("page/" + name)
	if err != nil {
		panic("console: " + err.Error()) // embedded
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write(data)
	}
}

// page is the page itself, with the panel's files where there is one.
func (c *Console) page() http.HandlerFunc {
	data, err := files.ReadFile("page/index.html")
	if err != nil {
		panic("console: " + err.Error()) // embedded
	}
	panel := ""
	if c.o.Panel != nil {
		panel = `<link rel="stylesheet" href="/panel/panel.css">` + "\n" + `<script src="/panel/panel.js" defer></script>`
	}
	data = bytes.Replace(data, []byte("<!-- panel -->"), []byte(panel), 1)
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(data)
	}
}

func answer(w http.ResponseWriter, data []byte) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(data)
}

// events is the stream of server-sent events: the whole state, then what changes.
func (c *Console) events(w http.ResponseWriter, r *http.Request) {
	viewer := make(chan []byte, 16)
	c.mu.Lock()
	full := len(c.viewers) >= mostViewers
	if !full {
		c.viewers[viewer] = struct{}{}
	}
	c.mu.Unlock()
	if full {
		w.Header().Set("Retry-After", "10")
		http.Error(w, "too many look at the console", http.StatusServiceUnavailable)
		return
	}
	defer func() {
		c.mu.Lock()
		delete(c.viewers, viewer)
		c.mu.Unlock()
	}()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // a proxy must not gather them
	out := http.NewResponseController(w)
	send := func(parts ...[]byte) bool {
		_ = out.SetWriteDeadline(time.Now().Add(10 * time.Second)) // who does not read is let go
		for _, p := range parts {
			if _, err := w.Write(p); err != nil {
				return false
			}
		}
		return out.Flush() == nil
	}
	event := func(data []byte) bool { return send([]byte("data: "), data, []byte("\n\n")) }
	c.look(r.Context())
	if !event(c.whole()) {
		return
	}
	alive := time.NewTicker(sign)
	defer alive.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-c.closing:
			return
		case data, ok := <-viewer:
			if !ok || !event(data) {
				return
			}
		case <-alive.C:
			if !send([]byte(": \n\n")) {
				return
			}
		}
	}
}

// reveal gives one masked text whole.
func (c *Console) reveal(w http.ResponseWriter, r *http.Request) {
	text, err := c.seal.open(r.FormValue("ref"))
	if err != nil {
		http.Error(w, "this reference is of another console, or of one that was started anew: load the page again", http.StatusNotFound)
		return
	}
	answer(w, encode(map[string]string{"text": text}))
}

// A stepView is a step of a trace as the page shows it.
type stepView struct {
	At       int64  `json:"at"`
	Kind     string `json:"kind"`
	Title    masked `json:"title"`
	Detail   masked `json:"detail,omitzero"`
	Stream   string `json:"stream,omitempty"`
	Sequence uint64 `json:"sequence,omitempty"`
	Subject  masked `json:"subject,omitzero"`
	Key      masked `json:"key,omitzero"`
}

// mostSteps bounds what one search shows.
const mostSteps = 500

func (c *Console) trace(w http.ResponseWriter, r *http.Request) {
	id := strings.TrimSpace(r.FormValue("id"))
	if id == "" || len(id) > 200 {
		http.Error(w, "a phone, e-mail, lead, cus_…, sub_…, in_…, evt_… or Twilio SID", http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 30*time.Second)
	defer cancel()
	steps, err := c.o.Trace(ctx, id)
	if err != nil {
		c.o.Log.Warn("a search of the console came to nothing", "reason", err.Error())
		http.Error(w, "the search came to nothing: the log says why", http.StatusBadGateway)
		return
	}
	more := max(0, len(steps)-mostSteps)
	steps = slices.Clone(steps[more:])
	views := make([]stepView, 0, len(steps))
	for _, s := range steps {
		views = append(views, stepView{At: s.At.UnixMilli(), Kind: s.Kind, Title: c.seal.text(s.Title), Detail: c.seal.text(s.Detail),
			Stream: s.Stream, Sequence: s.Sequence, Subject: c.seal.text(s.Subject), Key: c.seal.text(s.Key)})
	}
	answer(w, encode(map[string]any{"steps": views, "more": more}))
}
