#!/bin/sh
# Writes the SMART figures of all disks to a file, for TEXTFILE_DIR. The metrics have the names of the community's textfile script.
#
#   smartmon.sh FILE
#
# Needs root and smartctl 7.0 or newer. A disk that sleeps is not woken up.
set -eu
export LC_ALL=C

readonly file="${1:?usage: smartmon.sh FILE}"
# The agent reads only files whose names end in .prom, so it never reads a part of the figures.
readonly part="$file.part"
readonly samples="$file.samples"
trap 'rm -f "$part" "$samples"' EXIT
umask 022

# smartctl writes each value of its JSON output as one line: json.device.name = "/dev/sda";
# This program prints the value of the path `wanted`.
value_of() {
    awk -v wanted="json.$1" '
        index($0, wanted " = ") == 1 {
            sub(/^[^=]*= /, "")
            sub(/;$/, "")
            gsub(/^"|"$/, "")
            print
            exit
        }'
}

# Prints the samples of one disk. The input is the output of smartctl.
samples_of_disk() {
    awk -v disk="$1" -v type="$2" -v now="$(date +%s)" '
        function sample(name, labels, value) {
            printf "smartmon_%s{disk=\"%s\",type=\"%s\"%s} %s\n", name, disk, type, labels, value
        }
        function has(path) { return ("json." path) in values }
        function get(path) { return values["json." path] }
        # The text of a label. The escapes \\ and \" are the same in JSON and in the text format.
        function label(name, text) {
            gsub(/\\[^\\"]/, " ", text)
            return "," name "=\"" text "\""
        }
        function flag(path) { return get(path) == "true" ? 1 : 0 }
        # A figure that is not an attribute with a number has the number of the same attribute of an ATA disk, or none.
        function raw(name, id, path) {
            if (has(path)) sample(name "_raw_value", label("smart_id", id), sprintf("%.0f", get(path) + 0))
        }
        {
            at = index($0, " = ")
            if (!at) next
            text = substr($0, at + 3)
            sub(/;$/, "", text)
            if (text ~ /^".*"$/) text = substr(text, 2, length(text) - 2)
            values[substr($0, 1, at - 1)] = text
        }
        END {
            sample("smartctl_run", "", now)
            if (get("smartctl.messages[0].string") ~ /mode, exit\(/) {
                sample("device_active", "", 0)
                exit
            }
            # The disk does not answer.
            if (!has("model_name") && !has("smart_status.passed") && !has("scsi_product") && !has("product")) exit
            sample("device_active", "", 1)
            info = label("vendor", has("scsi_vendor") ? get("scsi_vendor") : get("vendor"))
            info = info label("product", has("scsi_product") ? get("scsi_product") : get("product"))
            info = info label("revision", has("scsi_revision") ? get("scsi_revision") : get("revision"))
            info = info label("lun_id", get("logical_unit_id"))
            info = info label("model_family", get("model_family"))
            info = info label("device_model", get("model_name"))
            info = info label("serial_number", get("serial_number"))
            info = info label("firmware_version", get("firmware_version"))
            sample("device_info", info, 1)
            # smartctl 7.2 and older do not tell whether the disk has SMART. A disk with a health status has it.
            is_told = has("smart_support.available")
            sample("device_smart_available", "", is_told ? flag("smart_support.available") : has("smart_status.passed"))
            sample("device_smart_enabled", "", is_told ? flag("smart_support.enabled") : has("smart_status.passed"))
            if (has("smart_status.passed")) sample("device_smart_healthy", "", flag("smart_status.passed"))
            for (row = 0; has("ata_smart_attributes.table[" row "].id"); row++) {
                path = "ata_smart_attributes.table[" row "]."
                name = tolower(get(path "name"))
                gsub(/[^a-z0-9]/, "_", name)
                if (name ~ /^unknown/ || name == "") continue
                id = label("smart_id", get(path "id"))
                sample(name "_value", id, get(path "value") + 0)
                sample(name "_worst", id, get(path "worst") + 0)
                sample(name "_threshold", id, get(path "thresh") + 0)
                # The raw number of some disks has several values. Their text begins with the first: "34 (Min/Max 20/45)".
                sample(name "_raw_value", id, sprintf("%.0f", get(path "raw.string") + 0))
            }
            if (row) exit
            raw("power_on_hours", 9, "power_on_time.hours")
            raw("power_cycle_count", 12, "power_cycle_count")
            raw("temperature_celsius", 194, "temperature.current")
            raw("grown_defects_count", -1, "scsi_grown_defect_list")
            log_path = "nvme_smart_health_information_log."
            count = split("critical_warning available_spare available_spare_threshold percentage_used data_units_read " \
                "data_units_written host_reads host_writes controller_busy_time unsafe_shutdowns media_errors " \
                "num_err_log_entries", names, " ")
            for (i = 1; i <= count; i++) raw(names[i], -1, log_path names[i])
        }'
}

scan=$(smartctl --json=g --scan-open) || true
major=$(printf '%s\n' "$scan" | value_of 'smartctl.version[0]')
minor=$(printf '%s\n' "$scan" | value_of 'smartctl.version[1]')
if [ -z "$major" ]; then
    echo 'smartmon.sh: smartctl 7.0 or newer is needed' >&2
    exit 1
fi
printf 'smartmon_smartctl_version{version="%s.%s"} 1\n' "$major" "$minor" >"$samples"

number=0
while disk=$(printf '%s\n' "$scan" | value_of "devices[$number].name") && [ -n "$disk" ]; do
    type=$(printf '%s\n' "$scan" | value_of "devices[$number].type")
    number=$((number + 1))
    # The exit status tells of the disk's state, and the output has the same.
    { smartctl --json=g --all --nocheck=standby --device="$type" "$disk" || true; } |
        samples_of_disk "$disk" "$type" >>"$samples"
done

sort "$samples" | awk -F '{' '
    $1 != name {
        name = $1
        help = substr(name, length("smartmon_") + 1)
        gsub(/_/, " ", help)
        print "# HELP " name " SMART: " help
        print "# TYPE " name " gauge"
    }
    { print }' >"$part"
mv "$part" "$file"
