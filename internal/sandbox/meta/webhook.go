package meta

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
)

// IDs is how a webhook writes its ids: Meta's documentation shows numbers, live
// webhooks have been seen with strings.
type IDs bool

// The two ways.
const (
	AsStrings IDs = false
	AsNumbers IDs = true
)

// Webhook is the body that announces leads: one entry a page, in the order of each
// page's first lead, and one change a lead.
func Webhook(ids IDs, leads ...Lead) []byte {
	id := func(s string) any {
		if ids == AsNumbers {
			return json.Number(s)
		}
		return s
	}
	type change struct {
		Field string         `json:"field"`
		Value map[string]any `json:"value"`
	}
	type entry struct {
		ID      any      `json:"id"`
		Time    int64    `json:"time"`
		Changes []change `json:"changes"`
	}
	entries := []entry{}
	for _, l := range leads {
		at := slices.IndexFunc(entries, func(e entry) bool { return e.ID == id(l.PageID) })
		if at < 0 {
			at = len(entries)
			entries = append(entries, entry{ID: id(l.PageID)})
		}
		value := map[string]any{"leadgen_id": id(l.ID), "page_id": id(l.PageID), "form_id": id(l.FormID),
			"created_time": l.CreatedTime.Unix()}
		if l.AdID != "" {
			value["ad_id"] = id(l.AdID)
		}
		if l.AdgroupID != "" {
			value["adgroup_id"] = id(l.AdgroupID)
		}
		entries[at].Time = max(entries[at].Time, l.CreatedTime.Unix())
		entries[at].Changes = append(entries[at].Changes, change{"leadgen", value})
	}
	body, err := json.Marshal(map[string]any{"object": "page", "entry": entries})
	if err != nil {
		panic(fmt.Sprintf("meta stand-in: an id is not a number: %v", err)) // the caller's mistake
	}
	return body
}

// Sign is X-Hub-Signature-256 of a body.
func Sign(body []byte, appSecret string) string {
	mac := hmac.New(sha256.New, []byte(appSecret))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// Send posts a signed body once and gives the HTTP status of the answer. An error
// means that there was none.
func Send(ctx context.Context, client *http.Client, url string, body []byte, appSecret string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, fmt.Errorf("building a webhook: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "facebookexternalua")
	req.Header.Set("X-Hub-Signature-256", Sign(body, appSecret))
	resp, err := client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("sending a webhook: %w", err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection can be used again
	return resp.StatusCode, nil
}
