//go:build browser

package sandbox_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/google/go-cmp/cmp"

	"leadpipe/contracts"
	"leadpipe/internal/natstest"
)

// A page is the console in a browser, with everything that the browser complains about.
type page struct {
	t   *testing.T
	ctx context.Context
	url string

	mu       sync.Mutex
	problems []string
}

// chromium finds the browser: CHROMIUM, or where systems have it.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{os.Getenv("CHROMIUM"), "/usr/bin/chromium", "chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("no browser: install Debian's chromium, or name one in CHROMIUM")
	return ""
}

// visit opens the page as somebody with a language, a window and a taste sees it.
func visit(t *testing.T, url, language string, width int64, scheme string) *page {
	t.Helper()
	p := visitAny(t, url, language, width, scheme)
	p.await(`document.getElementById("summary").className === "good"`)
	return p
}

// visitAny is visit, whatever the page says of the pipeline.
func visitAny(t *testing.T, url, language string, width int64, scheme string) *page {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium(t)), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("lang", language), chromedp.Flag("accept-lang", language), chromedp.Flag("disable-gpu", true), chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	p := &page{t: t, ctx: ctx, url: url}
	p.do(chromedp.EmulateViewport(width, 900))
	p.complaints()
	p.do(func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}}})
		return chromedp.Void{}, err
	})
	p.do(chromedp.Navigate(url))
	return p
}

// complaints collects errors of scripts, of the console and of the content policy.
func (p *page) complaints() {
	add := func(what string) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.problems = append(p.problems, what)
	}
	thrown, called, entries := chromedp.Events(p.ctx, runtime.ExceptionThrown), chromedp.Events(p.ctx, runtime.ConsoleAPICalled), chromedp.Events(p.ctx, log.EntryAdded)
	go func() {
		for e, err := range thrown {
			if err != nil {
				return
			}
			add(fmt.Sprintf("exception: %s %+v", e.ExceptionDetails.Text, e.ExceptionDetails.Exception))
		}
	}()
	go func() {
		for e, err := range called {
			if err != nil {
				return
			}
			if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning || e.Type == runtime.ConsoleAPICalledTypeAssert {
				add(fmt.Sprintf("console.%s", e.Type))
			}
		}
	}()
	go func() {
		for e, err := range entries {
			if err != nil {
				return
			}
			if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
				add(fmt.Sprintf("%s: %s %s", e.Entry.Level, e.Entry.Text, e.Entry.URL))
			}
		}
	}()
}

// calm says that the browser had nothing to complain about.
func (p *page) calm() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.problems {
		p.t.Errorf("the browser complains: %s", x)
	}
}

func (p *page) do(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, actions...); err != nil {
		p.t.Fatal(err)
	}
}

func evaluate[T any](p *page, js string) T {
	p.t.Helper()
	v, err := chromedp.Run(p.ctx, chromedp.Evaluate[T](js))
	if err != nil {
		p.t.Fatalf("%s: %v", js, err)
	}
	return v
}

// await waits until an expression is true.
func (p *page) await(js string) {
	p.t.Helper()
	start := time.Now()
	for !evaluate[bool](p, "(() => { try { return Boolean("+js+"); } catch { return false; } })()") {
		if time.Since(start) > 40*time.Second {
			p.shoot("failed")
			p.t.Fatalf("not seen on the page: %s\n%s", js, evaluate[string](p, `document.getElementById("columns").innerText + document.getElementById("below").innerText`))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// click clicks what a person would, where it is. What is drawn anew meanwhile is looked
// for again.
func (p *page) click(selector string) {
	p.t.Helper()
	for try := 0; ; try++ {
		p.await(fmt.Sprintf(`(e => e && !e.disabled)(document.querySelector(%q))`, selector))
		err := chromedp.Do(p.ctx, chromedp.Click(chromedp.CSS(selector)))
		if err == nil {
			return
		}
		if try == 5 {
			p.t.Fatalf("clicking %s: %v", selector, err)
		}
	}
}

func (p *page) fill(selector, value string) {
	p.t.Helper()
	p.do(chromedp.SetValue(chromedp.CSS(selector), value))
}

// shoot takes a picture of the whole page, for people to look at.
func (p *page) shoot(name string) {
	p.t.Helper()
	png, err := chromedp.Run(p.ctx, chromedp.FullScreenshot(100))
	if err != nil {
		p.t.Fatal(err)
	}
	dir := natstest.Root(p.t, "screenshots")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// has waits for a webhook with an effect, and a state of it where one is given.
func (p *page) has(webhook, effect, state string) {
	p.t.Helper()
	selector := fmt.Sprintf(`.webhook[data-kind="%s"] .effect[data-kind="%s"]`, webhook, effect)
	if state != "" {
		selector += fmt.Sprintf(`[data-state="%s"]`, state)
	}
	p.await(fmt.Sprintf(`document.querySelector('%s')`, selector))
}

// row waits for a row of the spreadsheet that has all these cells.
func (p *page) row(tab string, cells ...string) {
	p.t.Helper()
	p.click(fmt.Sprintf(`#p-tabs [data-tab="%s"]`, tab))
	list, err := json.Marshal(cells)
	if err != nil {
		p.t.Fatal(err)
	}
	p.await(fmt.Sprintf(`[...document.querySelectorAll("#p-rows tbody tr")].some(tr => %s.every(c => [...tr.children].some(td => td.textContent === c)))`, list))
}

const said = `document.querySelector("#p-said code").textContent`

// TestBrowserEveryButton presses each button of the panel and sees what it causes, on the page.
func TestBrowserEveryButton(t *testing.T) {
	t.Parallel()
	s, _ := start(t)
	p := visit(t, serve(t, s), "en-US", 1440, "light")
	p.shoot("empty-1440-en")

	// A form: seen live, in the sheet and on the phone. How long it takes is said, not judged.
	p.fill("#p-name", "Léa Petit")
	p.fill("#p-phone", "06 39 98 01 50")
	begin := time.Now()
	p.click("#p-lead button")
	p.has("leadgen", "lead", "")
	p.row("Leads", "Léa Petit", "+33639980150")
	p.await(`document.querySelector('.phone-card[data-phone="+33639980150"] .bubble')`)
	t.Logf("a lead from the panel is in the sheet and on the phone after %v", time.Since(begin).Round(time.Millisecond))
	p.await(said + `.includes("kv get crm lead.")`)
	p.has("leadgen", "sms.welcome", "delivered")
	p.has("leadgen", "sheet", "")

	// Money.
	p.click("#p-pay")
	p.has("checkout.session.completed", "customer", "client")
	p.row("Clients", "Léa Petit", "client", "active")
	p.await(said + `.includes("kv get crm customer.cus_")`)
	p.click("#p-change")
	p.has("customer.subscription.updated", "subscription", "active")
	p.row("Clients", "price_large")
	p.await(said + `.includes("kv get crm subscription.sub_")`)
	p.click("#p-fail1")
	p.has("invoice.payment_failed", "sms.payment_failed", "")
	p.row("Clients", "past_due", "active", "1")
	p.click("#p-payagain")
	p.has("invoice.paid", "subscription", "")
	p.row("Clients", "client", "active", "0")
	p.click("#p-fail3")
	p.row("Clients", "suspended", "3")
	p.click("#p-payagain")
	p.row("Clients", "client", "active", "0")
	p.click("#p-fail2")
	p.row("Clients", "past_due", "2")
	p.click("#p-cancel")
	p.has("customer.subscription.deleted", "churn", "ended")
	p.row("Churn", "cancellation_requested")
	p.await(said + `.includes("kv get crm churn.sub_")`)

	// A text, then STOP: blocked at Twilio, and the sheet says so.
	p.fill("#p-body", "Bonjour, je suis au 06 39 98 01 50")
	p.click("#p-texts")
	p.await(`document.querySelector('.webhook[data-kind="inbound"] q').textContent.includes("****0150")`)
	p.fill("#p-body", "STOP")
	p.click("#p-texts")
	p.has("optout", "optout", "STOP")
	p.await(`document.getElementById("p-blocked").textContent.includes("+33639980150")`)
	p.row("Opt-outs", "+33639980150", "STOP")
	p.await(said + `.includes("stream get WEBHOOKS --last-for 'webhooks.twilio.*.33639980150'")`)

	// The whole story of a number, with the number masked until a click.
	p.fill("#who", "06 39 98 01 50")
	p.click("#search button")
	p.await(`document.getElementById("trace-title").textContent === "What happened to 06 39 98 01 50"`)
	for _, kind := range []string{"webhook", "record", "text"} {
		p.await(fmt.Sprintf(`document.querySelector("#steps .step.%s .title")`, kind))
	}
	if shown := evaluate[string](p, `document.getElementById("steps").innerText`); strings.Contains(shown, "3639980150") || !strings.Contains(shown, "STOP") {
		t.Errorf("the story shows %q", shown)
	}
	p.shoot("search-1440-en")
	p.contrast()
	p.click("#trace-close")
	p.await(`document.getElementById("trace").hidden`)
	p.fill("#who", "nobody@example.com")
	p.click("#search button")
	p.await(`document.getElementById("trace-title").textContent.startsWith("Nothing is known of this.")`)
	p.click("#trace-close")

	// The same again, and backwards: nothing new is texted, and no row is added.
	settle(t, s)
	before := p.world()
	p.click("#p-again")
	p.await(said + `.includes("stream info WEBHOOKS")`)
	p.click("#p-backwards")
	p.await(`!acting && document.querySelector("#p-said code")`)
	settle(t, s)
	if diff := cmp.Diff(before, p.world()); diff != "" {
		t.Errorf("what came again changed something:\n%s", diff)
	}

	// A consumer that is stopped is seen to be, and catches up.
	p.click(`#p-consumers [data-name="billing"]`)
	p.await(`document.querySelector('.durable[data-durable="billing"][data-state="nobody"]')`)
	p.await(`document.getElementById("summary").textContent === "Nobody runs billing."`)
	p.fill("#p-name", "Hugo Moreau")
	p.fill("#p-phone", "0639980151")
	p.click("#p-lead button")
	p.await(`document.getElementById("p-who").selectedOptions[0].textContent.startsWith("Hugo")`)
	p.click("#p-pay")
	p.await(`document.querySelector('.durable[data-durable="billing"]').textContent.includes("3 to do")`)
	p.shoot("stopped-1440-en")
	p.click(`#p-consumers [data-name="billing"]`)
	p.row("Clients", "Hugo Moreau", "client")
	p.await(`document.querySelector('.durable[data-durable="billing"][data-state="idle"]')`)

	// A provider that is down, and up again.
	p.click(`#p-vendors [data-name="Google"]`)
	p.await(`document.querySelector('#p-vendors [data-name="Google"][aria-checked="false"]')`)
	p.fill("#p-name", "Inès Laurent")
	p.fill("#p-phone", "0639980152")
	p.click("#p-lead button")
	p.await(`document.querySelector('.phone-card[data-phone="+33639980152"] .bubble')`)
	p.await(`["busy", "waiting"].includes(document.querySelector('.durable[data-durable="sheets"]').dataset.state)`)
	p.click(`#p-vendors [data-name="Google"]`)
	p.row("Leads", "Inès Laurent")
	for _, name := range []string{"Meta", "Twilio"} {
		p.click(fmt.Sprintf(`#p-vendors [data-name=%q]`, name))
		p.await(fmt.Sprintf(`document.querySelector('#p-vendors [data-name=%q][aria-checked="false"]')`, name))
		p.click(fmt.Sprintf(`#p-vendors [data-name=%q]`, name))
		p.await(fmt.Sprintf(`document.querySelector('#p-vendors [data-name=%q][aria-checked="true"]')`, name))
	}

	// The list stands still, and goes on.
	p.click("#pause")
	seen := evaluate[int](p, `document.querySelectorAll(".webhook").length`)
	p.click("#p-again")
	p.click("#p-pay")
	p.await(`/^Go on \(\d+ new\)$/.test(document.getElementById("pause").textContent)`)
	if n := evaluate[int](p, `document.querySelectorAll(".webhook").length`); n != seen {
		t.Errorf("the list went from %d to %d while it was to stand still", seen, n)
	}
	p.click("#pause")
	p.await(fmt.Sprintf(`document.querySelectorAll(".webhook").length > %d || document.querySelectorAll(".webhook").length === 50`, seen))

	// An incident comes with its command, which is copied whole, and goes when it is mended.
	incident := func(resolved string) {
		record := `{"id":"optouts-1","at":"2026-11-26T10:00:00Z","severity":"warning","consumer":"optouts","count":3,"last_at":"2026-11-26T11:00:00Z",` +
			`"reason":"+33639980150 wrote a word that may be a STOP","action":"consumers opt-out +33639980150"` + resolved + `}`
		if _, err := s.JS.Publish(t.Context(), contracts.SubjectOfKey("incident.optouts-1"), []byte(record)); err != nil {
			t.Fatal(err)
		}
	}
	incident("")
	p.await(`document.getElementById("summary").textContent === "1 thing needs you."`)
	if shown := evaluate[string](p, `document.getElementById("todo").innerText`); strings.Contains(shown, "3639980150") || !strings.Contains(shown, "consumers opt-out +336****0150") {
		t.Errorf("the incident shows %q", shown)
	}
	evaluate[string](p, `window.wrote = ""; navigator.clipboard.writeText = async text => { window.wrote = text; }; ""`)
	p.click("#todo .copy")
	p.await(`window.wrote === "consumers opt-out +33639980150"`)
	p.await(`document.querySelector("#todo .copy").textContent === "Copied"`)
	p.shoot("full-1440-en")
	incident(`,"resolved_at":"2026-11-26T12:00:00Z"`)
	p.await(`!document.getElementById("calm").hidden`)
	p.contrast()
	p.calm()
}

// A world is what people see: their texts and the spreadsheet.
type world struct {
	Texts []struct{ Phone, Body, Status string }
	Tabs  []struct {
		Name string
		Rows [][]string
	}
}

func (p *page) world() (w world) {
	p.t.Helper()
	res, err := http.Get(p.url + "/panel/state")
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if err := json.NewDecoder(res.Body).Decode(&w); err != nil {
		p.t.Fatal(err)
	}
	return w
}

// TestBrowserRunsNothingOfAWebhook has people with names that a careless page would run.
func TestBrowserRunsNothingOfAWebhook(t *testing.T) {
	t.Parallel()
	s, _ := start(t)
	p := visit(t, serve(t, s), "fr-FR", 390, "dark")
	if lang := evaluate[string](p, `document.documentElement.lang`); lang != "fr" {
		t.Errorf("the page's language is %q", lang)
	}
	p.shoot("empty-390-fr")
	for i, name := range []string{`<img src=x onerror="document.title='ran'">`, `<script>document.title='ran'</script>`, `"><svg onload=document.title='ran'>`, `{{1+1}}${1+1}`, `javascript:document.title='ran'`} {
		status, err := s.SendLead(t.Context(), name, fmt.Sprintf("+3363998016%d", i), "x@example.com")
		if err != nil || status != 200 {
			t.Fatalf("%d, %v", status, err)
		}
		quoted, err := json.Marshal(name)
		if err != nil {
			t.Fatal(err)
		}
		p.await(fmt.Sprintf(`[...document.querySelectorAll(".webhook .name")].some(e => e.textContent === %s)`, quoted))
		p.await(fmt.Sprintf(`[...document.querySelectorAll("#p-rows td")].some(e => e.textContent === %s)`, quoted))
	}
	if title := evaluate[string](p, `document.title`); title != "leadpipe" {
		t.Errorf("a name ran: the title is %q", title)
	}
	if n := evaluate[int](p, `document.querySelectorAll("main img, main script, .webhook svg, #p-rows svg").length`); n != 0 {
		t.Errorf("%d elements came out of names", n)
	}
	// Even a script that got in somehow could not run.
	if evaluate[bool](p, `(() => { try { document.body.innerHTML += "<b>x</b>"; return true; } catch { return false; } })()`) {
		t.Error("the page lets text become markup")
	}

	// Numbers are masked in what is live, until one is clicked.
	p.await(`document.querySelector(".webhook .phone.masked")`)
	if live := evaluate[string](p, `document.getElementById("webhooks").innerText`); strings.Contains(live, "+33639980") {
		t.Error("a number is shown whole")
	}
	p.click(".webhook .phone.masked")
	p.await(`/^\+336399801\d\d$/.test(document.querySelector(".webhook .phone.revealed").textContent)`)
	if n := evaluate[int](p, `document.querySelectorAll(".webhook .phone.revealed").length`); n != 1 {
		t.Errorf("one click shows %d numbers", n)
	}

	// A phone's width is enough: nothing sticks out.
	if w := evaluate[int](p, `document.documentElement.scrollWidth`); w > 390 {
		t.Errorf("the page is %d pixels wide on a phone of 390", w)
	}
	p.shoot("full-390-fr")
	p.contrast()
	p.mu.Lock() // the attempt at markup above is one that the browser reports
	for i := 0; i < len(p.problems); i++ {
		if strings.Contains(p.problems[i], "TrustedHTML") {
			p.problems = append(p.problems[:i], p.problems[i+1:]...)
			i--
		}
	}
	p.mu.Unlock()
	p.calm()
}

// TestBrowserByKeyboardAndByName drives the page without a mouse, and looks for a name on
// everything that can be used.
func TestBrowserByKeyboardAndByName(t *testing.T) {
	t.Parallel()
	s, _ := start(t)
	url := serve(t, s)
	for _, view := range []struct {
		language string
		width    int64
		scheme   string
	}{{"fr-FR", 1440, "light"}, {"en-US", 390, "dark"}} {
		p := visit(t, url, view.language, view.width, view.scheme)
		p.do(chromedp.Focus(chromedp.CSS("#p-name")), chromedp.SendKeys(chromedp.CSS("#p-name"), "\r"))
		p.has("leadgen", "lead", "contacted")
		p.do(chromedp.Focus(chromedp.CSS(`#p-consumers [data-name="sms"]`)), chromedp.SendKeys(chromedp.CSS(`#p-consumers [data-name="sms"]`), " "))
		p.await(`document.querySelector('#p-consumers [data-name="sms"][aria-checked="false"]')`)
		p.do(chromedp.SendKeys(chromedp.CSS(`#p-consumers [data-name="sms"]`), " "))
		p.await(`document.querySelector('#p-consumers [data-name="sms"][aria-checked="true"]')`)
		nameless := evaluate[[]string](p, `[...document.querySelectorAll("button, input, select, a[href]")].filter(e =>
			!(e.textContent.trim() || e.getAttribute("aria-label") || (e.labels && [...e.labels].some(l => l.textContent.trim())))).map(e => e.outerHTML)`)
		if len(nameless) > 0 {
			t.Errorf("no name: %s", nameless)
		}
		left := evaluate[[]string](p, `[...document.querySelectorAll("[data-t]")].filter(e => e.textContent === e.dataset.t).map(e => e.dataset.t)`)
		if len(left) > 0 {
			t.Errorf("%s: no words for %s", view.language, left)
		}
		if w := evaluate[int64](p, `document.documentElement.scrollWidth`); w > view.width {
			t.Errorf("the page is %d pixels wide in a window of %d", w, view.width)
		}
		p.shoot(fmt.Sprintf("lead-%d-%s", view.width, view.language[:2]))
		p.contrast()
		p.calm()
	}
}

// contrast measures every text against what is behind it.
// https://www.w3.org/TR/WCAG22/#contrast-minimum asks for 4.5:1; disabled controls are
// exempt.
func (p *page) contrast() {
	p.t.Helper()
	low := evaluate[[]string](p, `(() => {
		const rgb = c => { const m = c.match(/[\d.]+/g).map(Number); return { c: m.slice(0, 3), a: m.length > 3 ? m[3] : 1 }; };
		const lum = c => { const [r, g, b] = c.map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
		const over = (top, a, under) => top.map((v, i) => v * a + under[i] * (1 - a));
		const behind = e => { if (!e) return [255, 255, 255]; const b = rgb(getComputedStyle(e).backgroundColor); return b.a === 1 ? b.c : over(b.c, b.a, behind(e.parentElement)); };
		const found = new Set(), walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
		for (let n; n = walk.nextNode();) {
			const e = n.parentElement;
			if (!n.data.trim() || !e.checkVisibility() || e.closest("button:disabled, noscript, script, svg, option, .hidden, .skip")) continue;
			const bg = behind(e), s = getComputedStyle(e), fg = over(rgb(s.color).c, rgb(s.color).a * Number(s.opacity), bg), [a, b] = [lum(fg), lum(bg)].sort((x, y) => y - x);
			const ratio = (a + .05) / (b + .05);
			if (ratio < 4.5) found.add(e.tagName + "." + e.className + " " + ratio.toFixed(2));
		}
		return [...found];
	})()`)
	for _, l := range low {
		p.t.Errorf("hard to read: %s", l)
	}
}
